"""What must not change within a run."""

import json

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


def test_a_run_is_its_settings_and_its_inputs(tmp_path):
    def of(lr="0.1", eps="1.0e-8", clips=3, folder="run"):
        (tmp_path / folder).mkdir(exist_ok=True)
        text = YAML.format(tmp_path / folder).replace("0.1", lr).replace("1.0e-8", eps)
        (tmp_path / folder / "hyperparams.yaml").write_text(text)
        return fingerprint(tmp_path / folder, {"training clips": clips})

    reference = of()
    assert reference == json.loads(json.dumps(reference))  # as in a checkpoint
    assert reference == of(folder="moved") == of(lr="1e-1")
    assert describe_changes(reference, of(lr="0.2")) == "lr was 0.1, now 0.2"
    assert "opt_class was" in describe_changes(reference, of(eps="1.0e-6"))
    assert describe_changes(reference, of(clips=2)) == "training clips was 3, now 2"
