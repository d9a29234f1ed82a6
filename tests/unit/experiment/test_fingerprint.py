"""What must not change within a run, and what of it is told."""

from eat.data.dataset import audio_dataset
from eat.data.manifest import ManifestRow, write_manifest
from eat.experiment.fingerprint import differences, identity, relevant_settings

YAML = """\
seed: 1
lr: 0.1
num_workers: 2
output_folder: {0}
save: {0}/save
opt_class: !name:torch.optim.AdamW
    eps: 1.0e-8
"""


def test_free_settings_and_the_folder_s_place_do_not_count():
    one = {"seed": 1, "num_workers": 0, "save": "runs/a/save", "nested": ["runs/a"]}
    two = {"seed": 1, "num_workers": 4, "save": "/b/save", "nested": ["/b"]}
    assert relevant_settings(one, "runs/a") == relevant_settings(two, "/b")
    assert relevant_settings(one, "runs/a")["save"] == "save"
    assert relevant_settings({"save": "runs/ab"}, "runs/a") == {"save": "runs/ab"}


def test_differences_are_told_shortly():
    earlier = {"a": 1, "b": "x", "c": 3, "d": 4, "nested": {"a": 1}}
    now = {"a": 2, "b": "x" * 64, "c": 3.5, "d": 5, "nested": {"a": 2}}
    told = "a was 1, now 2, b was x, now xxxxxxxxxxxx..., c was 3, now 3.5"
    assert differences(earlier, now) == told
    assert differences(earlier, earlier) == ""
    assert differences({"nested": {"a": 1}}, {"nested": {"a": 2}}) == (
        "nested was {'a': 1}, now {'a': 2}"
    )


def test_a_run_is_its_settings_and_its_clips(tmp_path):
    def of(lr="0.1", clips="abc", labels=("/m/1",), folder="run"):
        (tmp_path / folder).mkdir(exist_ok=True)
        text = YAML.format(tmp_path / folder).replace("0.1", lr)
        (tmp_path / folder / "hyperparams.yaml").write_text(text)
        rows = [ManifestRow(clip, 1.0, f"{clip}.wav", labels) for clip in clips]
        write_manifest(tmp_path / "m.csv", rows)
        train = audio_dataset(tmp_path / "m.csv", tmp_path, None, 1)
        return identity(str(tmp_path / folder), train)

    whole = of()
    assert whole == of(folder="moved")
    assert differences(whole, of(lr="0.2")) == "lr was 0.1, now 0.2"
    assert "training clips was 3, now 2" in differences(whole, of(clips="ab"))
    for other in (of(clips="acb"), of(clips="abd"), of(labels=("/m/2",))):
        told = differences(whole, other)
        assert told.startswith("SHA-256 of their names and labels was")
