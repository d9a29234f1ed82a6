"""Every file in `examples/` runs from top to bottom, as its first lines say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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


@pytest.mark.slow
def test_file_features(pretrained, sounds):
    output = run("file_features.py", pretrained, sounds[0])
    assert "(128,)" in output and "(2, 32, 128)" in output and "(125, 128)" in output


@pytest.mark.slow
def test_nearest_neighbors(pretrained, sounds):
    lines = run("nearest_neighbors.py", pretrained, sounds[3], sounds[0].parent)
    first, *others = lines.splitlines()
    assert first == f"1.000  {sounds[3]}"  # itself
    assert len(others) == 4


@pytest.mark.slow
def test_tags_over_time(finetuned, sounds, tmp_path):
    run("tags_over_time.py", finetuned, sounds[0], tmp_path / "tags.png")
    assert (tmp_path / "tags.png").stat().st_size > 10_000


@pytest.mark.slow
def test_linear_probe(pretrained, classes):
    output = run("linear_probe.py", pretrained, classes)
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
def test_hugging_face(pretrained, sounds, tmp_path):
    output = run("hugging_face.py", pretrained, sounds[0], tmp_path / "hf")
    assert "(1, 129, 128)" in output
    assert float(output.rpartition(" ")[2]) < 1e-4


@pytest.mark.slow
def test_speechbrain_interfaces(finetuned, sounds):
    output = run("speechbrain_interfaces.py", finetuned, *sounds[:2])
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


def test_every_example_is_run_here():
    tests = Path(__file__).read_text(encoding="utf-8")
    for path in example_files():
        assert f'"{path.name}"' in tests


@pytest.mark.parametrize("path", example_files(), ids=lambda path: path.name)
def test_pages_have_a_title_and_the_code(path):
    page = page_of(path)
    assert page.startswith("# ") and f"examples/{path.name}" in page
    assert page.count("```") % 2 == 0 and "import eat" in page or "eat tag" in page
