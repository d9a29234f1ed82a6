"""`eat tag`: the scores are those of the network; what cannot be read is said."""

import json

import pytest
import torch

import eat
from eat.audio.io import read_audio
from eat.interop.pretrained import read_model, save_model


def scores_of(path, folder):
    """Return the logits of a file by the parts of a checkpoint."""
    wav = read_audio(path, 16_000)
    with torch.no_grad():
        return eat.load_classifier(folder)(eat.load_frontend(folder)(wav[None]))[0]


def tags_of(line):
    return {tag["label"]: tag["score"] for tag in json.loads(line)["tags"]}


def test_scores_are_sigmoids(eat_command, tagger, sounds):
    path = sounds / "0" / "4.wav"
    status, out, err = eat_command("tag", tagger, path, "--json", "--device", "cpu")
    assert (status, err) == (0, "")
    logits = scores_of(path, tagger)
    names = read_model(tagger)[0]["labels"]
    expected = dict(zip(names, logits.sigmoid().tolist(), strict=True))
    assert tags_of(out) == pytest.approx(expected, rel=1e-5)
    found = list(tags_of(out).values())
    assert found == sorted(found, reverse=True)
    (tag, *_) = json.loads(out)["tags"]
    assert (tag["start"], tag["end"]) == (0, 0.5)


def test_scores_of_exclusive_classes_are_a_softmax(
    eat_command, tagger, sounds, tmp_path
):
    config, _ = read_model(tagger)
    classifier = eat.load_classifier(tagger)
    save_model(tmp_path / "m", {**config, "multi_label": False}, classifier)
    path = sounds / "0" / "4.wav"
    _, out, _ = eat_command("tag", tmp_path / "m", path, "--json")
    assert sum(tags_of(out).values()) == pytest.approx(1, rel=1e-5)
    best = scores_of(path, tagger).softmax(0).max().item()
    assert max(tags_of(out).values()) == pytest.approx(best, rel=1e-5)


def test_table_of_a_folder(eat_command, tagger, sounds):
    (sounds / "loop").symlink_to(sounds)
    status, out, _ = eat_command("tag", tagger, sounds, "--top", "2")
    assert status == 0
    lines = out.splitlines()
    files = [line for line in lines if line.endswith(".wav")]
    names = sorted(str(path) for path in sounds.glob("[01]/[0-9].wav"))
    assert files == names  # each once, neither hidden files nor texts
    assert len(lines) == 3 * len(files)


def test_windows_have_times(eat_command, tagger, sounds):
    path = sounds / "0" / "0.wav"
    arguments = ("--window", "0.32", "--top", "1", "--json")
    _, out, _ = eat_command("tag", tagger, path, *arguments)
    times = [(tag["start"], tag["end"]) for tag in json.loads(out)["tags"]]
    assert times[0] == (0, 0.32)
    assert times[-1][1] == 0.5
    _, out, _ = eat_command("tag", tagger, path, *arguments[:-1])
    assert "0.00 -" in out and len(out.splitlines()) == 1 + len(times)


def test_threshold_and_names(eat_command, tagger, sounds, tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    path = sounds / "1" / "1.wav"
    arguments = ("--labels", tmp_path / "names.txt", "--threshold", "0.5", "--json")
    _, out, _ = eat_command("tag", tagger, path, *arguments)
    scores = scores_of(path, tagger).sigmoid().tolist()
    above = {name for name, score in zip("abcde", scores, strict=True) if score >= 0.5}
    assert above and tags_of(out).keys() == above


def test_unreadable_files_are_said_and_the_others_tagged(
    eat_command, tagger, sounds, tmp_path
):
    (tmp_path / "bad.wav").write_text("no sound")
    files = tmp_path / "bad.wav", sounds / "0" / "0.wav", tmp_path / "none.wav"
    status, out, err = eat_command("tag", tagger, *files, "--json")
    assert status == 1
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["path"] for record in records] == list(map(str, files))
    assert ["error" in record for record in records] == [True, False, True]
    assert "bad.wav" in err and "none.wav" in err and "2 of 3" in err


@pytest.mark.parametrize(
    "case",
    [
        "pretrained",
        "few_names",
        "empty_folder",
        "no_path",
        "no_model",
        "long_window",
        "no_device",
    ],
)
def test_errors_are_one_line(
    eat_command, tagger, sounds, tmp_path, parity_folder, case
):
    (tmp_path / "names.txt").write_text("a\nb\n")
    (tmp_path / "empty").mkdir()
    arguments, named = {
        "pretrained": ((parity_folder / "official_pretrain.pt", sounds), "fine-tune"),
        "few_names": (
            (tagger, sounds, "--labels", tmp_path / "names.txt"),
            "names.txt: 2 names",
        ),
        "empty_folder": ((tagger, tmp_path / "empty"), "empty"),
        "no_path": ((tagger, ""), "empty"),
        "no_model": ((tmp_path / "nothing", sounds), "nothing"),
        "long_window": ((tagger, sounds, "--window", "7"), "--window 7"),
        "no_device": ((tagger, sounds, "--device", "abacus"), "abacus"),
    }[case]
    status, out, err = eat_command("tag", *arguments)
    assert status == 1 and not out
    assert named in err and len(err.splitlines()) == 1
