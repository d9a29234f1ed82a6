"""The Hugging Face copy: parquet files as the data set agkphysics/AudioSet has them."""

import csv
import importlib
import io
import json
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from eat.audio.io import read_audio
from eat.errors import ManifestError
from eat.utils.parts import Part

sys.path.append(str(Path(__file__).parents[2] / "recipes" / "AudioSet"))
prepare = importlib.import_module("audioset_prepare")
parquet = importlib.import_module("audioset_parquet")

LABELS = 'index,mid,display_name\n0,/m/1,"Speech"\n1,/m/2,"Dog, bark"\n'
STRINGS = pa.list_(pa.string())
SCHEMA = pa.schema(
    {
        "video_id": pa.string(),
        "audio": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "labels": STRINGS,
        "human_labels": STRINGS,
    }
)


def flac(seed, rate=48000):
    wav = np.random.default_rng(seed).uniform(-0.5, 0.5, 12000)
    file = io.BytesIO()
    soundfile.write(file, wav, rate, format="FLAC", subtype="PCM_24")
    return file.getvalue()


def row(clip, content, folder="bal_train", labels=("/m/1",)):
    audio = {"bytes": content, "path": f"audio/{folder}/{clip}.flac"}
    return dict(zip(SCHEMA.names, (clip, audio, labels, ("Speech",)), strict=True))


def write_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows, SCHEMA)
    pq.write_table(table, path, row_group_size=2)


@pytest.fixture
def data(tmp_path):
    """Two balanced files and one for evaluation, with each kind of problem."""
    folder = tmp_path / "data"
    rows = [
        row(f"-good{number}", flac(number), labels=("/m/2", "/m/1"))
        for number in range(5)
    ]
    write_parquet(folder / "data" / "bal_train" / "00.parquet", rows)
    rows = [
        row("_other", flac(9, 44100)),
        row("nothing", None),
        row("noise", b"<html>"),
        row("cut", flac(7)[:400]),
        row("foreign", flac(8), labels=("/m/9",)),
        row("-good0", flac(6)),
    ]
    write_parquet(folder / "data" / "bal_train" / "01.parquet", rows)
    write_parquet(folder / "data" / "eval" / "00.parquet", [row("ev", flac(3), "eval")])
    (folder / "class_labels_indices.csv").write_text(LABELS)
    return folder


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def unpacked(monkeypatch):
    """Parquet files that are unpacked."""
    names = []
    unpack = parquet._unpack

    def spy(part, bar):
        names.append(f"{part.subset}/{part.parquet.name}")
        unpack(part, bar)

    monkeypatch.setattr(parquet, "_unpack", spy)
    return names


def test_clips_are_unpacked_and_listed(data, tmp_path):
    save = tmp_path / "save"
    prepare.prepare_audioset(data, save)
    rows = {row["ID"]: row for row in read_csv(save / "balanced_train.csv")}
    assert list(rows) == [*(f"-good{number}" for number in range(5)), "_other"]
    folder = save / "audio" / "balanced_train"
    assert rows["-good3"]["wav"] == str(folder / "00" / "-good3.flac")
    assert rows["-good3"]["labels"] == "/m/2;/m/1"
    assert rows["_other"]["duration"] == f"{12000 / 44100:.4f}"
    assert (folder / "00" / "-good3.flac").read_bytes() == flac(3)
    assert len(read_audio(rows["-good0"]["wav"])) == 4000
    assert [row["ID"] for row in read_csv(save / "eval.csv")] == ["ev"]
    assert len(read_csv(save / "pretrain.csv")) == 6


def test_unusable_rows_are_skipped_with_a_reason(data, tmp_path):
    prepare.prepare_audioset(data, tmp_path / "save")
    skipped = {row["id"]: row for row in read_csv(tmp_path / "save" / "skipped.csv")}
    assert skipped.keys() == {"nothing", "noise", "foreign", "cut"}
    for clip in ("cut", "noise"):
        assert skipped[clip]["reason"].startswith("unreadable: ")
    assert skipped["nothing"]["reason"] == "missing"
    assert skipped["foreign"]["reason"].endswith(": /m/9")
    summary = json.loads((tmp_path / "save" / "summary.json").read_text())
    assert summary["files_left_aside"]["duplicates"] == 1
    counts = summary["subsets"]["balanced_train"]
    assert (counts["listed"], counts["missing"], counts["used"]) == (10, 1, 6)


def test_an_interrupted_unpacking_resumes(data, tmp_path, monkeypatch, unpacked):
    save = tmp_path / "save"
    write, written = parquet._write_clip, []

    def interrupted(part, row):
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(row.id)
        return write(part, row)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(parquet, "_write_clip", interrupted)
        prepare.prepare_audioset(data, save)
    assert unpacked == ["balanced_train/00.parquet", "balanced_train/01.parquet"]
    unpacked.clear()
    prepare.prepare_audioset(data, save)
    assert unpacked == ["balanced_train/01.parquet", "eval/00.parquet"]
    assert len(read_csv(save / "balanced_train.csv")) == 6
    assert not list(save.rglob("*.tmp"))


def test_parts_unpack_and_check_their_files(data, tmp_path, unpacked):
    save, one = tmp_path / "save", tmp_path / "one"
    prepare.prepare_audioset(data, save)
    save.rename(one)
    unpacked.clear()
    prepare.prepare_audioset(data, save, part=Part(2, 2))
    assert unpacked == ["balanced_train/01.parquet"]
    with pytest.raises(ManifestError, match=r"save: part 1 of 2 .*--part 1/2\)"):
        prepare.prepare_audioset(data, save, part=Part(0, 2))
    prepare.prepare_audioset(data, save, part=Part(1, 2))
    assert len(unpacked) == 3

    def content(folder):
        files = [path for path in folder.rglob("*") if path.is_file()]
        files.remove(folder / "checked.csv")  # has the times of the unpacked files
        return {path.relative_to(folder): path.read_bytes() for path in files}

    assert content(save) == content(one)


def test_a_second_run_has_nothing_to_do(data, tmp_path, monkeypatch, unpacked):
    prepare.prepare_audioset(data, tmp_path / "save")
    unpacked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "check_audio", None)
        prepare.prepare_audioset(data, tmp_path / "save")
    rows = [row("new", flac(1), "eval")]
    write_parquet(data / "data" / "eval" / "00.parquet", rows)
    (tmp_path / "save" / "audio" / "balanced_train" / "00.csv").unlink()
    prepare.prepare_audioset(data, tmp_path / "save")
    assert unpacked == ["balanced_train/00.parquet", "eval/00.parquet"]
    assert [row["ID"] for row in read_csv(tmp_path / "save" / "eval.csv")] == ["new"]


def test_parquet_files_may_be_deleted_once_unpacked(data, tmp_path, unpacked):
    save = tmp_path / "save"
    prepare.prepare_audioset(data, save)
    before = (save / "balanced_train.csv").read_text()
    shutil.rmtree(data / "data" / "bal_train")
    unpacked.clear()
    prepare.prepare_audioset(data, save)
    (save / "summary.json").unlink()
    prepare.prepare_audioset(data, save)
    assert (save / "balanced_train.csv").read_text() == before
    assert unpacked == []


def test_what_another_copy_left_is_not_used(data, tmp_path):
    prepare.prepare_audioset(data, tmp_path / "save")
    data.rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "data" / "bal_train")
    prepare.prepare_audioset(tmp_path / "moved", tmp_path / "save")
    assert not (tmp_path / "save" / "balanced_train.csv").exists()


def test_the_folder_named_data_is_accepted(data, tmp_path, monkeypatch, unpacked):
    (data / "class_labels_indices.csv").rename(data / "data/class_labels_indices.csv")
    monkeypatch.chdir(data / "data" / "eval")
    prepare.prepare_audioset("..", "../../../save")
    shutil.rmtree(data / "data" / "bal_train")
    prepare.prepare_audioset("..", "../../../save")
    assert len(read_csv(tmp_path / "save" / "balanced_train.csv")) == 6
    assert len(unpacked) == 3


def test_clips_of_official_lists_may_be_missing(data, tmp_path):
    text = 'ev, 0.000, 10.000, "/m/2"\ngone, 0.000, 10.000, "/m/2"\n'
    (data / "eval_segments.csv").write_text(text)
    prepare.prepare_audioset(data, tmp_path / "save")
    summary = json.loads((tmp_path / "save" / "summary.json").read_text())
    counts = summary["subsets"]["eval"]
    assert (counts["listed"], counts["missing"], counts["used"]) == (2, 1, 1)
    assert read_csv(tmp_path / "save" / "eval.csv")[0]["labels"] == "/m/1"


def no_label_list(data):
    (data / "class_labels_indices.csv").unlink()


def cut_file(data):
    path = data / "data" / "eval" / "00.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def corrupt_page(data):
    path = data / "data" / "eval" / "00.parquet"
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)


def other_columns(data):
    table = pa.table({"video_id": ["a"], "labels": [["/m/1"]], "sound": [b""]})
    pq.write_table(table, data / "data" / "eval" / "00.parquet")


def path_for_an_id(data):
    write_parquet(data / "data" / "eval" / "00.parquet", [row("../../x", flac(1))])


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (no_label_list, "class_labels_indices.csv: .*http://storage.googleapis"),
        (cut_file, "eval/00.parquet: "),
        (corrupt_page, "eval/00.parquet: "),
        (other_columns, "eval/00.parquet: .*'audio'.* video_id, labels"),
        (path_for_an_id, "eval/00.parquet: .*'../../x'"),
    ],
)
def test_a_malformed_copy(data, tmp_path, spoil, fault):
    spoil(data)
    with pytest.raises(ManifestError, match=f"{tmp_path}.*{fault}"):
        prepare.prepare_audioset(data, tmp_path / "save")
    assert not (tmp_path / "save" / "summary.json").exists()
    assert not (tmp_path / "x.flac").exists()


def test_a_full_disk_is_noticed_before_unpacking(data, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(ManifestError, match="save: .* 3 .* 0.0 GB"):
        prepare.prepare_audioset(data, tmp_path / "save")


def cast(data, column, kind, values=None, metadata=None):
    """Store a column of the evaluation clip in another type."""
    path = data / "data" / "eval" / "00.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index(column)
    array = pa.array(values, kind) if values else table[column].cast(kind)
    table = table.set_column(place, column, array)
    pq.write_table(table.replace_schema_metadata(metadata), path)


def class_label(feature):
    """Return metadata as `datasets` writes it."""
    features = {"video_id": {"dtype": "string", "_type": "Value"}, "labels": feature}
    return {"huggingface": json.dumps({"info": {"features": features}})}


BY_NAME = {"names": ["Dog, bark", "Speech"], "_type": "ClassLabel"}
BY_ID = {"names": ["/m/2", "/m/1"], "_type": "ClassLabel"}
AUDIO = {"bytes": flac(3), "path": None}


@pytest.mark.parametrize(
    ("column", "kind", "values", "feature"),
    [
        ("labels", pa.large_list(pa.large_string()), None, None),
        ("labels", pa.list_(pa.dictionary(pa.int32(), pa.string())), [["/m/1"]], None),
        ("labels", pa.list_(pa.string(), 1), [["Speech"]], None),
        ("labels", pa.string(), ["/m/1,"], None),
        ("labels", pa.string(), ["Speech"], None),
        ("labels", pa.string(), ["['/m/1']"], None),
        ("labels", pa.dictionary(pa.int8(), pa.string()), ["Speech"], None),
        ("labels", pa.int64(), [1], BY_NAME),
        ("labels", pa.list_(pa.int64()), [[1]], {"feature": BY_ID, "_type": "List"}),
        ("labels", pa.list_(pa.int8()), [[1, -1]], {"feature": BY_NAME}),
        ("labels", pa.list_(pa.uint16()), [[1, None]], [BY_NAME]),
        ("video_id", pa.large_string(), None, None),
        ("video_id", pa.binary(), [b"ev"], None),
        ("video_id", pa.dictionary(pa.int32(), pa.string()), ["ev"], None),
        ("audio", pa.binary(), [flac(3)], None),
        ("audio", pa.large_binary(), [flac(3)], None),
        ("audio", pa.struct({"path": pa.null(), "bytes": pa.binary()}), [AUDIO], None),
        ("audio", pa.struct({"bytes": pa.large_binary()}), [AUDIO], None),
        ("audio", pa.string(), ["sound/ev.flac"], None),
        ("audio", pa.struct({"path": pa.string()}), [{"path": "sound/ev.flac"}], None),
    ],
)
def test_columns_of_other_types(data, tmp_path, column, kind, values, feature):
    (data / "sound").mkdir()
    (data / "sound" / "ev.flac").write_bytes(flac(3))
    cast(data, column, kind, values, class_label(feature) if feature else None)
    prepare.prepare_audioset(data, tmp_path / "save")
    [clip] = read_csv(tmp_path / "save" / "eval.csv")
    assert (clip["ID"], clip["labels"]) == ("ev", "/m/1")
    wav = clip["wav"].replace("$data_root", str(data))
    assert Path(wav).read_bytes() == flac(3)


@pytest.mark.parametrize(
    ("column", "kind", "values", "fault"),
    [
        ("labels", pa.int64(), [1], "'labels' .*int64.*list<string>"),
        ("labels", pa.list_(pa.int64()), [[1]], "'labels' .*int64.*list<string>"),
        ("labels", pa.list_(pa.float32()), [[1.0]], "'labels' .*float.*list<string>"),
        ("labels", pa.null(), [None], "'labels' .*null.*list<string>"),
        ("video_id", pa.int64(), [7], "'video_id' .*int64.*string, binary"),
        ("audio", pa.list_(pa.float32()), [[0.0]], "'audio' .*float.*struct<bytes"),
        ("audio", pa.null(), [None], "'audio' .*null.*struct<bytes"),
    ],
)
def test_types_that_are_not_read_are_named(
    data, tmp_path, unpacked, column, kind, values, fault
):
    cast(data, column, kind, values)
    with pytest.raises(ManifestError, match=f"eval/00.parquet: .*{fault}"):
        prepare.prepare_audioset(data, tmp_path / "save")
    assert unpacked == []  # noticed before the first of them is unpacked


def test_a_class_number_without_a_name(data, tmp_path):
    cast(data, "labels", pa.int64(), [2], class_label(BY_NAME))
    with pytest.raises(ManifestError, match="eval/00.parquet: .* 2 .*'ev'.* 2 "):
        prepare.prepare_audioset(data, tmp_path / "save")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "corrupt"),
        (b"no parquet file at all", "corrupt"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (None, "not a complete"),
    ],
)
def test_what_is_no_parquet_file(data, tmp_path, content, fault):
    path = data / "data" / "eval" / "00.parquet"
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ManifestError, match=f"^{path}: {fault}|^{path}: .*{fault}"):
        prepare.prepare_audioset(data, tmp_path / "save")


def test_an_unfinished_download_is_refused_and_hidden_files_are_not_read(
    data, tmp_path
):
    folder = data / "data" / "eval"
    (folder / "._00.parquet").write_bytes(b"\0\5\x16\7")  # by macOS
    prepare.prepare_audioset(data, tmp_path / "save")
    (folder / "01.parquet.part").touch()
    with pytest.raises(ManifestError, match="eval/01.parquet.part: "):
        prepare.prepare_audioset(data, tmp_path / "save")


def test_clips_for_evaluation_are_never_trained_on(data, tmp_path):
    rows = [row("ev", flac(4)), row("-good1", flac(5))]
    write_parquet(data / "data" / "unbal_train" / "00.parquet", rows)
    prepare.prepare_audioset(data, tmp_path / "save")
    clips = {
        name: {row["ID"] for row in read_csv(tmp_path / "save" / f"{name}.csv")}
        for name in ("eval", "unbalanced_train", "balanced_train", "pretrain")
    }
    assert clips["eval"] == {"ev"} and clips["unbalanced_train"] == {"-good1"}
    assert "-good1" in clips["balanced_train"] and "ev" not in clips["pretrain"]


def test_a_column_that_occurs_twice(data, tmp_path):
    path = data / "data" / "eval" / "00.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("labels", table["labels"]), path)
    with pytest.raises(ManifestError, match="eval/00.parquet: .*'labels'"):
        prepare.prepare_audioset(data, tmp_path / "save")


def test_a_file_without_rows_and_rows_of_nothing(data, tmp_path):
    write_parquet(data / "data" / "eval" / "01.parquet", [])
    nothing = {"video_id": "null", "audio": None, "labels": None}
    write_parquet(data / "data" / "eval" / "02.parquet", [nothing])
    prepare.prepare_audioset(data, tmp_path / "save")
    assert [row["ID"] for row in read_csv(tmp_path / "save" / "eval.csv")] == ["ev"]


def test_paths_do_not_lead_out_of_the_data_folder(data, tmp_path):
    secret = tmp_path / "secret.flac"
    secret.write_bytes(flac(3))
    for path in (str(secret), "../../secret.flac"):
        cast(data, "audio", pa.string(), [path])
        shutil.rmtree(tmp_path / "save", ignore_errors=True)
        prepare.prepare_audioset(data, tmp_path / "save")
        assert read_csv(tmp_path / "save" / "eval.csv") == []


def test_evaluation_clips_among_the_training_files(data, tmp_path):
    path = data / "data" / "bal_train" / "02.parquet"
    write_parquet(path, [row("ev", flac(3)), row("lost", flac(5))])
    text = 'ev, 0.000, 10.000, "/m/1"\nlost, 0.000, 10.000, "/m/2"\n'
    (data / "eval_segments.csv").write_text(text)
    prepare.prepare_audioset(data, tmp_path / "save")
    for name in ("balanced_train", "pretrain"):
        rows = read_csv(tmp_path / "save" / f"{name}.csv")
        assert len(rows) == 6 and not {"ev", "lost"} & {row["ID"] for row in rows}
