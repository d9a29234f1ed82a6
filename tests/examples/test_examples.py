"""Every file in `examples/` runs from top to bottom, as its first lines say."""

import os
import runpy
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import eat
from eat.data.manifest import ManifestRow, write_manifest
from eat.interop.card import folder_texts
from eat.interop.loading import build_classifier, build_pretraining
from eat.interop.pretrained import save_model
from example_pages import EXAMPLES, example_files, page_of

FRONTEND = {"mean": -11.09, "std": 5.65, "num_frames": 256}
ENCODER = {
    "dim": 128,
    "depth": 4,
    "num_heads": 2,
    "max_frames": 256,
    "num_mels": 128,
    "position_scale": 0.2,
}
CLASSES = [f"class {number}" for number in range(10)]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A network of the mini recipes' size, not trained."""
    torch.manual_seed(0)
    config = {
        "kind": "pretraining",
        "encoder": ENCODER,
        "decoder": {"dim": 128, "depth": 3, "kernel": 3, "groups": 4},
        "utterance_weight": 32.0,
        "frontend": FRONTEND,
    }
    folder = tmp_path_factory.mktemp("pretrained") / "model"
    save_model(folder, config, build_pretraining(config))
    return folder


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory):
    """The same with a head for ten classes."""
    torch.manual_seed(0)
    config = {
        "kind": "classifier",
        "encoder": ENCODER,
        "num_classes": len(CLASSES),
        "pooling": "mean",
        "labels": CLASSES,
        "frontend": FRONTEND,
    }
    folder = tmp_path_factory.mktemp("finetuned") / "model"
    texts = folder_texts(folder, config, parameters=0)
    save_model(folder, config, build_classifier(config), texts)
    return folder


@pytest.fixture(scope="module")
def sounds(esc50):
    return sorted((esc50 / "audio").glob("*.wav"))


@pytest.fixture(scope="module")
def classes(sounds, tmp_path_factory):
    """A folder of recordings for each of three classes."""
    folder = tmp_path_factory.mktemp("classes")
    for path in sounds:
        name = path.stem.rpartition("-")[2]
        (folder / name).mkdir(exist_ok=True)
        shutil.copy(path, folder / name)
    for name in sorted(p.name for p in folder.iterdir())[3:]:
        shutil.rmtree(folder / name)
    return folder


def run(name, *arguments, **environment):
    path = EXAMPLES / name
    command = ["bash"] if path.suffix == ".sh" else [sys.executable]
    programs = str(Path(sys.executable).parent)
    environment |= {
        "PATH": os.pathsep.join([programs, os.environ["PATH"]]),
        "PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    answer = subprocess.run(
        [*command, path, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.fixture
def run_here(capsys, monkeypatch):
    """Run an example in this process, which has imported torch already."""

    def run(name, *arguments):
        programs = str(Path(sys.executable).parent)
        monkeypatch.setenv("PATH", os.pathsep.join([programs, os.environ["PATH"]]))
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_file_features(run_here, pretrained, sounds):
    output = run_here("file_features.py", pretrained, sounds[0])
    assert "(128,)" in output and "(2, 32, 128)" in output and "(125, 128)" in output


@pytest.mark.slow
def test_nearest_neighbors(run_here, pretrained, sounds):
    lines = run_here("nearest_neighbors.py", pretrained, sounds[3], sounds[0].parent)
    first, *others = lines.splitlines()
    assert first == f"1.000  {sounds[3]}"  # itself
    assert len(others) == 4


@pytest.mark.slow
def test_tags_over_time(run_here, finetuned, sounds, tmp_path):
    run_here("tags_over_time.py", finetuned, sounds[0], tmp_path / "tags.png")
    assert (tmp_path / "tags.png").stat().st_size > 10_000


@pytest.mark.slow
def test_linear_probe(run_here, pretrained, classes):
    output = run_here("linear_probe.py", pretrained, classes)
    assert "15 recordings, 3 classes" in output and "chance 0.333" in output


@pytest.mark.slow
def test_finetune_own_classes(pretrained, classes, tmp_path):
    short = "--number_of_epochs 1 --steps_per_epoch 2 --batch_size 2 --device cpu"
    output = run(
        "finetune_own_classes.sh",
        *(pretrained, classes, tmp_path / "run", *short.split()),
        EAT_HPARAMS="finetune_mini",
    )
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
    assert any(name.name in output for name in classes.iterdir())


@pytest.mark.slow
def test_hugging_face(run_here, pretrained, sounds, tmp_path):
    output = run_here("hugging_face.py", pretrained, sounds[0], tmp_path / "hf")
    assert "(1, 129, 128)" in output
    assert float(output.rpartition(" ")[2]) < 1e-4


@pytest.mark.slow
def test_speechbrain_interfaces(run_here, finetuned, sounds):
    output = run_here("speechbrain_interfaces.py", finetuned, *sounds[:2])
    assert "(2, 128)" in output and output.count("class ") == 2


@pytest.mark.slow
def test_notebook(pretrained, sounds):
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    notebook = nbformat.read(EXAMPLES / "explore.ipynb", as_version=4)
    environment = {"EAT_MODEL": str(pretrained), "EAT_FOLDER": str(sounds[0].parent)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        nbclient.NotebookClient(notebook, timeout=300).execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 3


STUB = """#!/usr/bin/env bash
printf '%s|' "$@" >"$LOGS/$$"
[ "${@: -1}" != 2/3 ] || [ -e "$LOGS/repaired" ]
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """A command that logs its arguments, and fails at part 2 until it is repaired."""
    path, logs = tmp_path / "a command", tmp_path / "logs"
    logs.mkdir()
    path.write_text(STUB)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("LOGS", str(logs))
    return path


def test_slurm_array(stub, tmp_path):
    """Slurm runs the script once per task, of which only the number differs."""
    command = ["bash", EXAMPLES / "slurm_array.sh", "3", stub, "my file", "-x"]

    def task(number):
        environment = os.environ | {"SLURM_ARRAY_TASK_ID": str(number)}
        environment |= {"SLURM_ARRAY_TASK_COUNT": "1"}  # if one is submitted again
        return subprocess.run(command, env=environment, capture_output=True).returncode

    assert [task(number) for number in (1, 2, 3)] == [0, 1, 0]
    given = sorted(path.read_text() for path in (tmp_path / "logs").iterdir())
    assert given == [f"my file|-x|--part|{number}/3|" for number in (1, 2, 3)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 1 and "sbatch --array=1-N" in answer.stderr


@pytest.mark.slow
def test_slurm_array_of_a_corpus(esc50, tmp_path):
    """Two tasks prepare it; the array is the loop."""
    script = EXAMPLES.parent / "recipes" / "ESC50" / "esc50_prepare.py"
    save = tmp_path / "manifests"
    for number in (2, 1):
        assert not (save / "summary.json").exists()
        words = ("2", sys.executable, script, esc50, save)
        run("slurm_array.sh", *words, SLURM_ARRAY_TASK_ID=str(number))
    assert (save / "summary.json").exists()


@pytest.mark.slow
def test_submitit_parts(stub, tmp_path):
    pytest.importorskip("submitit")
    words = ("3", tmp_path / "jobs", stub, "my file")
    with pytest.raises(AssertionError, match=r"parts \[2\] of 3 failed"):
        run("submitit_parts.py", *words)
    (tmp_path / "logs" / "repaired").touch()
    assert "all 3 parts" in run("submitit_parts.py", *words)
    given = [path.read_text() for path in (tmp_path / "logs").glob("[0-9]*")]
    assert given.count("my file|--part|2/3|") == 3  # once more, and repaired


@pytest.mark.slow
def test_ray_features(pretrained, sounds, tmp_path):
    """Each recording has the features that it has alone, or the reason for none."""
    pytest.importorskip("ray")
    import pandas as pd

    (tmp_path / "my data").mkdir()
    for sound in sounds[:5]:
        shutil.copy(sound, tmp_path / "my data")
    rows = [ManifestRow(f"0{i}", 5.0, path.name) for i, path in enumerate(sounds[:5])]
    rows.append(ManifestRow("gone", 5.0, "gone.wav"))
    write_manifest(tmp_path / "all.csv", rows)
    words = (pretrained, tmp_path / "all.csv", tmp_path / "my data", tmp_path / "out")
    run("ray_features.py", *words, RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0")
    found = pd.read_parquet(tmp_path / "out").set_index("ID")
    assert sorted(found.index) == sorted(row.id for row in rows)
    assert "gone.wav" in found.failure["gone"] and found.features["gone"] is None
    model = eat.from_pretrained(pretrained)
    for row in rows[:-1]:
        alone = model.encode_file(tmp_path / "my data" / row.wav).values
        np.testing.assert_allclose(found.features[row.id], alone, atol=1e-5)


def test_every_example_is_run_here():
    tests = Path(__file__).read_text(encoding="utf-8")
    for path in example_files():
        assert f'"{path.name}"' in tests


@pytest.mark.parametrize("path", example_files(), ids=lambda path: path.name)
def test_pages_have_a_title_and_the_code(path):
    page = page_of(path)
    assert page.startswith("# ") and f"examples/{path.name}" in page
    assert page.count("```") % 2 == 0
    assert any(use in page for use in ("import eat", "eat tag", "eat features"))
