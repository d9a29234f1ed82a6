"""What must not change within a run."""

from eat.data.dataset import audio_dataset
from eat.data.manifest import ManifestRow, write_manifest
from eat.experiment.fingerprint import fingerprint, relevant_settings
from eat.utils.settings_diff import describe_changes

YAML = """\
seed: 1
lr: 0.1
num_workers: 2
output_folder: {0}
save: {0}/save
opt_class: !name:torch.optim.AdamW
    eps: 1.0e-8
"""


def test_free_settings_and_the_place_of_the_folder_do_not_count():
    def relevant(folder, **settings):
        return relevant_settings({"output_folder": folder, **settings})

    one = relevant("runs/a", num_workers=0, save="runs/a/save", nested=["runs/a"])
    two = relevant("/b", num_workers=4, save="/b/save", nested=["/b"])
    assert one == two and one["save"] == "save"
    assert relevant("runs/a", save="runs/ab")["save"] == "runs/ab"


def test_a_run_is_its_settings_and_its_clips(tmp_path):
    def of(lr="0.1", clips="abc", labels=("/m/1",), folder="run"):
        (tmp_path / folder).mkdir(exist_ok=True)
        text = YAML.format(tmp_path / folder).replace("0.1", lr)
        (tmp_path / folder / "hyperparams.yaml").write_text(text)
        rows = [ManifestRow(clip, 1.0, f"{clip}.wav", labels) for clip in clips]
        write_manifest(tmp_path / "m.csv", rows)
        train = audio_dataset(tmp_path / "m.csv", tmp_path, None, 1)
        return fingerprint(str(tmp_path / folder), train)

    reference = of()
    assert reference == of(folder="moved") == of(lr="1e-1")
    assert describe_changes(reference, of(lr="0.2")) == "lr was 0.1, now 0.2"
    assert "was 3, now 2" in describe_changes(reference, of(clips="ab"))
    for other in (of(clips="acb"), of(clips="abd"), of(labels=("/m/2",))):
        assert "SHA-256 was" in describe_changes(reference, other)


def test_other_training_sets_count_by_their_length(tmp_path):
    assert list(fingerprint(str(tmp_path), range(7)).values()) == [7]
