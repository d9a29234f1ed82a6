import csv
import io
import unicodedata

import pytest
import torch
from speechbrain.dataio.dataio import load_data_csv

from eat.data.compact_manifest import CompactManifest
from eat.data.manifest import (
    LABEL_COLUMNS,
    LabelSet,
    ManifestRow,
    read_labels,
    similar_names,
    write_labels,
    write_manifest,
)
from eat.errors import ManifestError

ROWS = [
    ManifestRow("a", 10.0, "audio/a.wav", ("/m/1", "/t/2")),
    ManifestRow("-b, c", 0.5, 'audio/x "y"/b.wav'),
]


def test_speechbrain_reads_our_manifests(tmp_path):
    write_manifest(tmp_path / "m.csv", ROWS)
    assert load_data_csv(tmp_path / "m.csv", {"data_root": "/corpus"}) == {
        "a": {"duration": 10.0, "wav": "/corpus/audio/a.wav", "labels": "/m/1;/t/2"},
        "-b, c": {"duration": 0.5, "wav": '/corpus/audio/x "y"/b.wav', "labels": ""},
    }


def test_absolute_paths_stay_as_they_are(tmp_path):
    rows = [ManifestRow("a", 1.0, "/elsewhere/a.wav"), ManifestRow("b", 1.0, "b.wav")]
    write_manifest(tmp_path / "m.csv", rows)
    clips = load_data_csv(tmp_path / "m.csv", {"data_root": "/corpus"})
    assert clips["a"]["wav"] == "/elsewhere/a.wav"
    assert clips["b"]["wav"] == "/corpus/b.wav"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    def failing_rows():
        yield ROWS[0]
        raise RuntimeError("stopped")

    write_manifest(tmp_path / "m.csv", ROWS)
    before = (tmp_path / "m.csv").read_bytes()
    with pytest.raises(RuntimeError, match="stopped"):
        write_manifest(tmp_path / "m.csv", failing_rows())
    assert (tmp_path / "m.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m.csv"]


def label_file(tmp_path, text):
    path = tmp_path / "class_labels_indices.csv"
    path.write_text(text)
    return path


def test_official_label_list_is_read(tmp_path):
    labels = read_labels(
        label_file(
            tmp_path,
            'index,mid,display_name\n0,/m/09x0r,"Speech"\n'
            '1,/m/05zppz,"Male speech, man speaking"\n',
        )
    )
    assert labels == LabelSet(
        ("/m/09x0r", "/m/05zppz"), ("Speech", "Male speech, man speaking")
    )
    assert len(labels) == 2
    assert labels.index("/m/05zppz") == 1
    assert "/m/09x0r" in labels
    assert "/m/0" not in labels


def test_a_label_list_may_lack_the_header(tmp_path):
    text = '0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n'
    bare = read_labels(label_file(tmp_path, text))
    assert bare == read_labels(label_file(tmp_path, "index,mid,display_name\n" + text))
    assert bare.ids == ("/m/09x0r", "/m/05zppz")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "index,mid,display_name"),
        ("index,mid,display_name\n", "index,mid,display_name"),
        ("id,start,end\n0,/m/1,Speech\n", "index,mid,display_name"),
        ("index,mid,display_name\n0,/m/1,A\n2,/m/2,B\n", "line 3 .*index 1"),
        ("0,/m/1,A\n2,/m/2,B\n", "line 2 .*index 1"),
        ("1,/m/1,A\n2,/m/2,B\n", "index,mid,display_name"),
        ("index,mid,display_name\n0,/m/1\n", "line 2"),
        ("index,mid,display_name\n0,/m/1,A\n1,/m/1,B\n", "twice"),
    ],
)
def test_a_malformed_label_list(tmp_path, text, fault):
    path = label_file(tmp_path, text)
    with pytest.raises(ManifestError, match=f"^{path}: .*{fault}"):
        read_labels(path)


def test_a_written_label_list_is_read(tmp_path):
    labels = LabelSet(("/m/1", "/m/2"), ('Male, "man"', "Straße"))
    write_labels(tmp_path / "labels.csv", labels)
    assert read_labels(tmp_path / "labels.csv") == labels


def test_a_missing_label_list(tmp_path):
    with pytest.raises(ManifestError, match="labels.csv: "):
        read_labels(tmp_path / "labels.csv")


def test_labels_become_multi_hot():
    labels = LabelSet(("x", "y", "z"), ("X", "Y", "Z"))
    assert labels.encode("z;x").tolist() == [1.0, 0.0, 1.0]
    assert labels.encode("").tolist() == [0.0, 0.0, 0.0]
    assert labels.encode("y").dtype == torch.float32


def test_a_label_outside_the_list_names_the_clip():
    labels = LabelSet(("x", "y"), ("X", "Y"))
    with pytest.raises(ManifestError, match="^clip7.wav: .*'w' .* 2 "):
        labels.encode("x;w", "clip7.wav")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", [True, False])
def test_a_label_list_saved_by_a_spreadsheet(tmp_path, encoding, delimiter, header):
    labels = LabelSet(("/m/1", "/m/2"), ("Male speech, man; speaking", "Straße"))
    rows = [LABEL_COLUMNS] * header
    rows += zip("01", labels.ids, labels.names, strict=True)
    text = io.StringIO()
    options = {"delimiter": delimiter, "quoting": csv.QUOTE_ALL}
    csv.writer(text, **options).writerows(rows)
    path = tmp_path / "labels.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    assert read_labels(path) == labels
    write_labels(path, read_labels(path))
    assert path.read_text().count("index") == 1


def test_labels_have_one_normal_form(tmp_path):
    decomposed = unicodedata.normalize("NFD", "é")
    labels = LabelSet((f"{decomposed} ", "x"), ("\u00a0É", "X"))
    assert labels.ids == ("é", "x") and labels.names == ("É", "X")
    assert decomposed in labels and labels.index(f" {decomposed}") == 0
    assert labels.encode(f"{decomposed} ; x;").tolist() == [1.0, 1.0]
    write_manifest(tmp_path / "m.csv", [ManifestRow("a", 1.0, "a.wav", (decomposed,))])
    [stored] = CompactManifest(tmp_path / "m.csv").labels
    assert stored == "é"
    with pytest.raises(ManifestError, match="twice"):
        LabelSet(("é", decomposed), ("a", "b"))


def test_similar_names_are_found():
    names = ["Dog", "cat", "dog ", "a b", "d\u200bog", "A_B", "bird"]
    assert similar_names(names) == ["Dog", "dog ", "d\u200bog", "a b", "A_B"]
    assert similar_names(["dog", "dogs", "hot dog"]) == []
