import pickle
import re
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.dataio.dataloader import SaveableDataLoader

from eat.audio.io import read_audio
from eat.data.dataset import Batch, audio_dataset, collate, hold_out
from eat.data.manifest import LabelSet, ManifestRow, write_manifest
from eat.errors import AudioError, ClipError, ManifestError

RATE = 16000
FIRST_SUBSTITUTES = [15, 9, 20, 22]
LABELS = LabelSet(("/m/1", "/m/2", "/m/3"), ("A", "B", "C"))


@pytest.fixture
def corpus(tmp_path):
    """Three clips of 0.5, 1 and 2 s, the last at 44.1 kHz and stereo."""
    rng = np.random.default_rng(0)
    (tmp_path / "audio").mkdir()
    clips = [("a", 8000, RATE, 1), ("b", 16000, RATE, 1), ("c", 88200, 44100, 2)]
    for name, samples, rate, channels in clips:
        wav = rng.uniform(-0.5, 0.5, (samples, channels))
        soundfile.write(tmp_path / "audio" / f"{name}.wav", wav, rate)
    rows = [
        ManifestRow("a", 0.5, "audio/a.wav", ("/m/3", "/m/1")),
        ManifestRow("b", 1.0, "audio/b.wav"),
        ManifestRow("c", 2.0, "audio/c.wav", ("/m/2",)),
    ]
    write_manifest(tmp_path / "m.csv", rows)
    return tmp_path


def test_items_have_the_truncated_waveform_and_the_target(corpus):
    dataset = audio_dataset(corpus / "m.csv", corpus, LABELS, max_seconds=1.5)
    items = [dataset[index] for index in range(len(dataset))]
    assert [item["id"] for item in items] == ["a", "b", "c"]
    assert [len(item["sig"]) for item in items] == [8000, 16000, 24000]
    whole = read_audio(corpus / "audio" / "c.wav")
    torch.testing.assert_close(items[2]["sig"], whole[:24000])
    targets = [item["target"].tolist() for item in items]
    assert targets == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_without_labels_there_is_no_target(corpus):
    dataset = audio_dataset(corpus / "m.csv", corpus, None, max_seconds=10)
    assert set(dataset[0]) == {"id", "sig", "failures"}
    batch = collate([dataset[0]])
    assert batch.target is None
    with pytest.raises(ValueError):
        _ = batch.labels


def test_collate_pads_with_zeros_and_keeps_exact_lengths(corpus):
    dataset = audio_dataset(corpus / "m.csv", corpus, LABELS, max_seconds=10)
    batch = collate([dataset[0], dataset[2]])
    assert batch.ids == ["a", "c"]
    assert batch.wav.shape == (2, 32000)
    assert batch.lengths.tolist() == [8000, 32000]
    assert batch.lengths.dtype == torch.int64
    assert torch.equal(batch.wav[0, :8000], dataset[0]["sig"])
    assert not batch.wav[0, 8000:].any()
    assert batch.target.tolist() == [[1, 0, 1], [0, 1, 0]]


def test_a_batch_moves_as_a_whole():
    batch = Batch(["a"], torch.ones(1, 4), torch.tensor([4]), torch.ones(1, 2))
    moved = batch.to("meta")
    assert moved.ids == ["a"]
    for tensor in (moved.wav, moved.lengths, moved.target):
        assert tensor.device.type == "meta"
    copy = pickle.loads(pickle.dumps(batch))
    assert torch.equal(copy.wav, batch.wav) and copy.ids == batch.ids
    unlabeled = Batch(["a"], torch.ones(1, 4), torch.tensor([4]))
    assert unlabeled.to("cpu").target is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinning needs a GPU")
def test_a_loader_pins_batches(corpus):
    dataset = audio_dataset(corpus / "m.csv", corpus, LABELS, max_seconds=1)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=3, collate_fn=collate, pin_memory=True
    )
    batch = next(iter(loader))
    assert batch.wav.is_pinned()
    assert batch.lengths.is_pinned()
    assert batch.target.is_pinned()


def test_speechbrain_loader_with_workers_gives_our_batches(corpus):
    dataset = audio_dataset(corpus / "m.csv", corpus, LABELS, max_seconds=1)
    pickle.loads(pickle.dumps(dataset))  # what workers started by spawning do
    loader = SaveableDataLoader(
        dataset, batch_size=2, collate_fn=collate, num_workers=1
    )
    batches = list(loader)
    assert [batch.ids for batch in batches] == [["a", "b"], ["c"]]
    assert isinstance(batches[0], Batch)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "ID,duration,wav,labels\n",
        "name,file\na,b\n",
        "ID,wav\na,$data_root/a.wav\n",
    ],
)
def test_an_empty_or_foreign_manifest(tmp_path, content):
    path = tmp_path / "m.csv"
    path.write_text(content)
    with pytest.raises(ManifestError, match=re.escape(f"{path}: ")) as error:
        audio_dataset(path, tmp_path, None, max_seconds=1)
    assert "\n" not in str(error.value)


def test_a_missing_manifest(tmp_path):
    with pytest.raises(ManifestError, match="m.csv: "):
        audio_dataset(tmp_path / "m.csv", tmp_path, None, max_seconds=1)


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ("a,1.0,$data_root/a.wav,\na,1.0,$data_root/b.wav,\n", "m.csv: .*'a'"),
        ("a,1.0\n", "m.csv: line 2: .*2 .*4"),
    ],
)
def test_a_malformed_manifest_is_named(tmp_path, rows, fault):
    (tmp_path / "m.csv").write_text("ID,duration,wav,labels\n" + rows)
    with pytest.raises(ManifestError, match=fault) as error:
        audio_dataset(tmp_path / "m.csv", tmp_path, None, max_seconds=1)
    assert "\n" not in str(error.value)


def test_unreadable_audio_is_named(corpus):
    (corpus / "audio" / "b.wav").write_text("no audio")
    dataset = audio_dataset(corpus / "m.csv", corpus, LABELS, max_seconds=1)
    with pytest.raises(AudioError, match="audio/b.wav: "):
        dataset[1]


@pytest.fixture
def unreadable(corpus):
    """The three clips, the second unreadable and to be substituted."""
    (corpus / "audio" / "b.wav").write_text("no audio")
    return audio_dataset(corpus / "m.csv", corpus, LABELS, 1, replace=True)


def test_another_clip_is_substituted_for_an_unreadable_one(unreadable):
    item = unreadable[1]
    assert item["id"] in "ac" and torch.equal(unreadable[1]["sig"], item["sig"])
    ((clip, reason), *_) = item["failures"]
    assert clip == "b" and "audio/b.wav: " in reason
    whole = unreadable["abc".index(item["id"])]
    assert torch.equal(item["target"], whole["target"]) and whole["failures"] == []
    batch = collate([unreadable[0], unreadable[1]])
    assert batch.failures == item["failures"] and batch.ids == ["a", item["id"]]


def tried(data, index):
    """Return the positions of the clips that are read for one, all unreadable."""
    paths = []

    def refuse(path):
        paths.append(int(Path(path).stem))
        raise AudioError(f"{path}: not audio")

    data.read = refuse
    with pytest.raises(AudioError) as error:
        data[index]
    return paths, str(error.value)


@pytest.mark.parametrize(("clips", "expected"), [(1, 1), (2, 2), (7, 7), (23, 10)])
def test_a_clip_is_tried_once_and_clips_are_counted(tmp_path, clips, expected):
    rows = [ManifestRow(f"c{i}", 1.0, f"{i}.wav") for i in range(clips)]
    write_manifest(tmp_path / "m.csv", rows)
    data = audio_dataset(tmp_path / "m.csv", tmp_path, None, 1, replace=True)
    for index in range(clips):
        paths, message = tried(data, index)
        assert paths[0] == index and len(set(paths)) == len(paths) == expected
        assert re.search(rf"\b{clips} clips", message)
        assert tried(data, index)[0] == paths


def test_substitutes_are_those_of_earlier_versions(many):
    """A resumed run substitutes the same clips as before they were distinct."""
    many.replace = True
    assert [tried(many, index)[0][1] for index in range(4)] == FIRST_SUBSTITUTES


def test_substitutes_come_from_the_same_part(many):
    many.replace = True
    for part in hold_out(many, 0.2):
        ids = {int(part.id(i)) for i in range(len(part))}
        assert all(ids.issuperset(tried(part, i)[0]) for i in range(len(part)))


def test_a_subset_keeps_order_labels_and_settings(unreadable):
    part = unreadable.subset(np.array([2, 1]))
    assert [part.id(i) for i in range(len(part))] == ["c", "b"]
    assert part.labels(0) == ("/m/2",) and part.labels(1) == ()
    assert part[0]["id"] == "c" and part[1]["failures"]


def test_without_substitutes_an_unreadable_clip_is_an_error(unreadable):
    rest, held = hold_out(unreadable, 0.5)
    assert rest.replace and not held.without_substitutes().replace
    assert [item["id"] for item in held.without_substitutes()] == ["a", "c"]
    with pytest.raises(AudioError, match="audio/b.wav: "):
        rest.without_substitutes()[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unexpected_error_names_the_clip(corpus, workers):
    data = audio_dataset(corpus / "m.csv", corpus, None, 1, replace=True)
    data.read = out_of_memory
    loader = torch.utils.data.DataLoader(data, num_workers=workers, collate_fn=collate)
    batches = iter(loader)
    with pytest.raises(ClipError) as error:
        next(batches)
    if workers:
        batches._shutdown_workers()  # not whenever it happens to be collected
    last = str(error.value.args[0]).strip().splitlines()[-1]
    assert last.endswith("clip a: MemoryError, no room for it")


def out_of_memory(path):
    raise MemoryError("no room for it")


def test_clips_being_read_are_known_from_outside(corpus):
    data = audio_dataset(corpus / "m.csv", corpus, None, 1)
    assert data.clips_being_read() == []
    workers = torch.utils.data.DataLoader(data, num_workers=2, collate_fn=collate)
    ended = torch.multiprocessing.Event()
    data.read = partial(hang, ended)
    iterator = iter(workers)
    deadline = time.monotonic() + 20
    while len(data.clips_being_read()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(data.clips_being_read()) == ["a", "b"]
    ended.set()  # before torch gives each of them five seconds
    iterator._shutdown_workers()


def hang(ended, path):
    ended.wait(60)
    return torch.zeros(8)


def test_a_label_outside_the_list_names_the_file(corpus):
    few = LabelSet(("/m/1", "/m/3"), ("A", "C"))
    dataset = audio_dataset(corpus / "m.csv", corpus, few, max_seconds=1)
    with pytest.raises(ManifestError, match="audio/c.wav: .*'/m/2'"):
        dataset[2]


@pytest.fixture
def many(tmp_path):
    """A manifest of 23 clips, without their audio."""
    rows = [ManifestRow(str(i), 1.0, f"{i}.wav") for i in range(23)]
    write_manifest(tmp_path / "many.csv", rows)
    return audio_dataset(tmp_path / "many.csv", tmp_path, None, max_seconds=1)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.1, [0, 10, 20]),
        (0.2, [0, 5, 10, 15, 20]),
        (0.5, range(0, 23, 2)),
        (1e-3, [0]),
    ],
)
def test_hold_out_takes_every_nth(many, share, expected):
    rest, held = hold_out(many, share)
    kept, ids = ([part.id(i) for i in range(len(part))] for part in (held, many))
    assert kept == [str(i) for i in expected]
    rest_ids = [rest.id(i) for i in range(len(rest))]
    assert rest_ids == [clip for clip in ids if clip not in kept]
    assert len(many) == 23  # as it was


def test_parts_read_the_same_clips(corpus):
    data = audio_dataset(corpus / "m.csv", corpus, LABELS, max_seconds=1)
    rest, held = hold_out(data, 0.5)
    assert [item["id"] for item in held] == ["a", "c"]
    assert held[1]["target"].tolist() == [0, 1, 0]
    assert torch.equal(rest[0]["sig"], data[1]["sig"])


@pytest.mark.parametrize("share", [0, -0.1, 0.6, 1, float("nan")])
def test_a_share_out_of_range(many, share):
    with pytest.raises(ManifestError, match=f"held_out {share}: "):
        hold_out(many, share)


def test_one_clip_cannot_be_split(tmp_path):
    write_manifest(tmp_path / "m.csv", [ManifestRow("a", 1.0, "a.wav")])
    data = audio_dataset(tmp_path / "m.csv", tmp_path, None, max_seconds=1)
    with pytest.raises(ManifestError, match="^a: "):
        hold_out(data, 0.1)
