"""results.json holds settings, numbers of clips and versions."""

import json
import subprocess
from importlib.metadata import version

import pytest

import eat
from eat.experiment import results as module
from eat.experiment.results import write_results
from eat.utils import versions as version_module
from eat.utils.versions import versions

SETTINGS = """\
seed: 3
lr: 0.01
manifest_folder: {}
model: !new:torch.nn.Linear
    in_features: 2
"""


@pytest.fixture
def run(tmp_path):
    """Return a run's folder with its settings; its manifests are beside it."""
    folder, manifests = tmp_path / "run", tmp_path / "manifests"
    folder.mkdir()
    manifests.mkdir()
    (folder / "hyperparams.yaml").write_text(SETTINGS.format(manifests))
    return folder


def written(folder):
    return json.loads((folder / "results.json").read_text())


def test_settings_and_clips(run):
    subset = {"listed": 9, "used": 7, "used_in_paper": 20, "extra": 1}
    summary = {"subsets": {"train": subset}}
    (run.parent / "manifests" / "summary.json").write_text(json.dumps(summary))
    write_results(run, steps=4, best={"mAP": 0.5})
    found = written(run)
    assert found["steps"] == 4 and found["best"] == {"mAP": 0.5}
    plain = {"seed": 3, "lr": 0.01, "manifest_folder": str(run.parent / "manifests")}
    assert found["settings"] == plain  # no nested objects
    assert found["data"] == {"train": {"used": 7, "used_in_paper": 20}}
    assert found["versions"] == versions()


def test_without_settings_or_summary(run, tmp_path):
    write_results(run)
    assert written(run)["data"] is None
    write_results(tmp_path)
    assert written(tmp_path)["settings"] == {} and written(tmp_path)["data"] is None


def test_failed_write_leaves_the_earlier_results(run):
    write_results(run, steps=4)
    before = (run / "results.json").read_text()
    with pytest.raises(TypeError):
        write_results(run, steps=object())  # no JSON
    assert (run / "results.json").read_text() == before


def test_versions(monkeypatch):
    found = versions()
    assert found["eat"] == eat.__version__ and found["torch"] == version("torch")
    assert found["git"] is None or len(found["git"].removesuffix("+changes")) == 40

    def no_git(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert module.versions() == {**found, "git": None}


def test_revision_is_marked_if_files_differ_from_it(tmp_path, monkeypatch):
    def git(*words):
        by = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", tmp_path, *by, *words]
        return subprocess.check_output(command, text=True).strip()

    (tmp_path / "__init__.py").write_text("")
    monkeypatch.setattr(version_module, "__file__", str(tmp_path / "__init__.py"))
    assert versions()["git"] is None
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    (tmp_path / "new_results.json").write_text("")  # untracked
    assert versions()["git"] == git("rev-parse", "HEAD")
    (tmp_path / "__init__.py").write_text("x = 1")
    assert versions()["git"] == git("rev-parse", "HEAD") + "+changes"
