"""Own data: labels from folders and from tables of all kinds; splits and folds."""

import csv
import json
import logging
import shutil
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eat.errors import ManifestError

sys.path.append(str(Path(__file__).parents[2] / "recipes" / "OwnData"))
from own_data_prepare import prepare_own_data  # noqa: E402
from own_data_recordings import segment_of, source_of  # noqa: E402
from own_data_splits import Labeled, split_by_hash  # noqa: E402

CLASSES = ("dog", "cat")
FILES = [f"{name}/{i}.wav" for name in CLASSES for i in range(4)]


def write(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = np.random.default_rng(seed).uniform(-0.5, 0.5, 480)
    soundfile.write(path, wav, 16000)


@pytest.fixture
def make(tmp_path):
    """Write recordings, all different, and a table; gives the data folder."""

    def make(files=FILES, table=None, name="labels.csv"):
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        for seed, file in enumerate(files):
            write(data / file, seed)
        if table is not None:
            (data / name).parent.mkdir(exist_ok=True)
            (data / name).write_text(table, encoding="utf-8")
        return data

    return make


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def prepare(tmp_path):
    """Prepare a data folder; gives the labels by id, of each manifest."""

    def prepare(data, **options):
        prepare_own_data(data, tmp_path / "save", **options)
        summary = json.loads((tmp_path / "save" / "summary.json").read_text())
        names = {name.removesuffix(".csv") for name in summary["files"]}
        names -= {"labels", "skipped"}
        paths = {name: tmp_path / "save" / f"{name}.csv" for name in names}
        return {
            name: {row["ID"]: row["labels"] for row in rows(path)}
            for name, path in paths.items()
        }

    return prepare


@pytest.fixture
def reasons(tmp_path):
    """The reasons in skipped.csv, by file."""
    return lambda: {
        row["file"]: row["reason"] for row in rows(tmp_path / "save" / "skipped.csv")
    }


def labeled(found):
    """Return the labels in the manifests for training and evaluation, in one."""
    return found.get("balanced_train", {}) | found.get("eval", {})


# -- folders ---------------------------------------------------------------------------


def test_class_folders(make, prepare, tmp_path, reasons):
    data = make([*FILES, "cat/deep/er/9.wav", "noise.wav"])
    (data / "cat" / "._0.wav").touch()
    (data / "bird").mkdir()
    found = prepare(data)
    assert labeled(found) == {
        file.removesuffix(".wav"): file[:3] for file in [*FILES, "cat/deep/er/9.wav"]
    }
    for name in CLASSES:  # both have clips on both sides
        assert {name} < set(found["balanced_train"].values())
        assert name in found["eval"].values()
    assert not found["eval"].keys() & found["pretrain"].keys()
    assert "noise" in found["pretrain"]
    assert reasons() == {"noise.wav": "not in a class folder"}


LAYOUTS = {
    "train/dog/1.wav": "balanced_train",
    "training/dog/1.wav": "balanced_train",
    "val/dog/1.wav": "valid",
    "Test/dog/1.wav": "eval",
    "fold2/dog/1.wav": "eval_2",
    "dog/test/1.wav": "eval",
    "data/train/dog/1.wav": "balanced_train",
    "X.test_audio/dog/1.wav": "eval",
}


@pytest.mark.parametrize("file", LAYOUTS)
def test_folders_of_splits_and_folds(make, prepare, file):
    others = {
        "dog": ["dog/train/1.wav", "cat/train/2.wav", "cat/test/2.wav"],
        "data": [
            f"data/{name}" for name in ("train/cat/2.wav", "test/dog/3.wav", "0.wav")
        ],
        "X.test_audio": [f"X.train_audio/{name}.wav" for name in ("dog/3", "cat/4")],
        "fold2": ["fold1/dog/3.wav", "fold1/cat/4.wav", "fold2/cat/5.wav"],
    }
    splits = ["train/dog/3.wav", "train/cat/4.wav", "Test/cat/5.wav"]
    data = make([file, *others.get(file.split("/")[0], splits)])
    assert prepare(data)[LAYOUTS[file]][file.removesuffix(".wav")] == "dog"


@pytest.mark.parametrize(
    "files",
    [
        ["a.wav", "b.wav"],
        ["day0/a.wav", "day0/b.wav", "day1/c.wav"],
        ["2024-05-01/a.wav", "2024-05-01/b.wav", "2024-05-02/c.wav"],
        ["all/a.wav", "all/b.wav"],
        ["X.dev_audio/a.wav", "X.dev_audio/b.wav", "X.eval_audio/c.wav"],
        [f"data/Actor_{i}/{j}.wav" for i in range(2) for j in range(2)],
        ["one/a.wav", "two/b.wav", "three/c.wav"],
        ["a.wav", "b.wav", "c.wav", "dog/1.wav", "dog/2.wav", "cat/1.wav"],
    ],
)
def test_folders_that_are_no_classes(make, prepare, files):
    found = prepare(make(files))
    assert found.keys() == {"pretrain"} and len(found["pretrain"]) == len(files)


def test_folders_within_one(make, prepare):
    data = make([f"genres/{file}" for file in FILES])
    assert set(labeled(prepare(data)).values()) == set(CLASSES)


def test_folders_can_be_declared_classes(make, prepare, tmp_path):
    data = make(["day0/a.wav", "day0/b.wav", "day1/c.wav"])
    assert set(labeled(prepare(data, labels="folders")).values()) == {"day0", "day1"}
    assert prepare(data, labels="none").keys() == {"pretrain"}
    for name in ("b.wav", "a.wav"):
        (data / "day0" / name).unlink()
    with pytest.raises(ManifestError, match="data: 1 "):
        prepare(data, labels="folders")


@pytest.mark.parametrize("folder", ["a;b", "cost $x", "two\nlines"])
def test_a_folder_whose_name_cannot_be_a_label(make, prepare, folder):
    with pytest.raises(ManifestError) as error:
        prepare(make([*FILES, f"{folder}/1.wav"]))
    assert repr(folder) in str(error.value) and "\n" not in str(error.value)


def test_folders_beside_splits(make, prepare):
    with pytest.raises(ManifestError, match="'more'.*'test'"):
        prepare(make(["train/a/1.wav", "test/a/1.wav", "more/a/1.wav"]))


def test_links_are_followed_once(make, prepare, tmp_path):
    data = make()
    for i in range(2):
        write(tmp_path / "elsewhere" / f"{i}.wav", 20 + i)
    (data / "bird").symlink_to(tmp_path / "elsewhere")
    (data / "a link").symlink_to(data / "dog")
    (data / "dog" / "loop").symlink_to(data)
    (data / "itself").symlink_to("itself")
    found = labeled(prepare(data))
    assert found.keys() == {f[:-4] for f in (*FILES, "bird/0.wav", "bird/1.wav")}


# -- class names -----------------------------------------------------------------------


def test_composed_and_decomposed_names_are_one_class(make, prepare):
    names = {form: unicodedata.normalize(form, "é") for form in ("NFC", "NFD")}
    data = make([f"{name}/{form}.wav" for form, name in names.items()] + FILES)
    assert set(labeled(prepare(data)).values()) == {*CLASSES, names["NFC"]}
    table = "".join(
        f"{file},{name}\n" for file, name in zip(FILES, names.values(), strict=False)
    )
    found = labeled(prepare(make(table="file,label\n" + table)))
    assert set(found.values()) == {names["NFC"]}


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (("Dog", "dog"), True),
        (("dog bark", "dog_bark"), True),
        (("5", "05"), True),
        (("5", "5.0"), True),
        (("none", "nan"), False),
        (("NA", "null"), False),
        (("1", "10"), False),
    ],
)
def test_alike_names_are_two_classes_and_told(make, prepare, caplog, names, alike):
    table = "".join(f"{f},{n}\n" for f, n in zip(FILES, names, strict=False))
    found = labeled(prepare(make(table="file,label\n" + table)))
    assert set(found.values()) == set(names)
    assert all(repr(name) in caplog.text for name in names) == alike


# -- tables ----------------------------------------------------------------------------

TWO = {"dog/0": "a", "cat/0": "b"}
SEVERAL = {"dog/0": "a;b", "cat/0": "b"}
VGGSOUND = ["a_-dE67890x_000030", "-b_dE67890x_000000"]
TABLES = {
    # UrbanSound8K's and VGGSound's times are of the sources of the files.
    "slice_file_name,fsID,start,end,class\n0.wav,1,0,0.03,a\n1.wav,1,9,13,b\n": {
        "0": "a",
        "1": "b",
    },
    "a_-dE67890x,30,a,train\n-b_dE67890x,0,b,test\n": dict(
        zip(VGGSOUND, "ab", strict=True)
    ),
    "# made by hand\n# file, start, label\ndog/0.wav, 7, a\ncat/0.wav, 0, b\n": TWO,
    "file,label\ndog/0.wav,\"['a', 'b']\"\ncat/0.wav,['b']\ncat/1.wav,[]\n": SEVERAL,
    'file,label\ndog/0.wav,"[""a"", ""b""]"\ncat/0.wav,"(\'b\',)"\n': SEVERAL,
    "file,label\ndog/0.wav,a\ncat/0.wav,b\n": TWO,
    "dog/0.wav,a\ncat/0.wav,b\n": TWO,
    "a,dog/0.wav\nb,cat/0.wav\n": TWO,
    "File Name;Class-Name\r\ndog/0.wav;a\r\ncat/0.wav;b\r\n": TWO,
    "\ufefffname\tcategory\ndog/0\ta\ncat/0\tb\n": TWO,
    ",path,target,class\n0,dog/0.wav,7,a\n1,cat/0.wav,8,b\n": TWO,
    '"id" , "tag"\n"dog/0" , "a"\n\n"cat/0" , "b"\n,\n': TWO,
    "file,start,end,label\ndog/0.wav,,,a\ncat/0.wav,,,b\n": TWO,
    "wav,labels\ndog/0.wav,a;b\ncat/0.wav,b;\n": SEVERAL,
    "wav,labels\ndog/0.wav,a | b\ncat/0.wav,b\n": SEVERAL,
    'wav,labels\ndog/0.wav,"a,b"\ncat/0.wav,b\n': SEVERAL,
    'wav,labels\ndog/0.wav,"a, b"\ncat/0.wav,b\ncat/1.wav,a\n': {
        **SEVERAL,
        "cat/1": "a",
    },
    "audio;labels\ndog/0.wav;a,b\ncat/0.wav;b\n": SEVERAL,
    "file,label\ndog/0.wav,a\ncat/0.wav,b\n./dog/0.wav,b\n": SEVERAL,
    "file,a,b\ndog/0.wav,1,1\ncat/0.wav,0,1\ncat/1.wav,0,0\n": SEVERAL,
    "file,length,a,b\ndog/0.wav,7,1.0,True\ncat/0.wav,8,,1\n": SEVERAL,
    'file,label\ndog/0.wav,"Male speech, man speaking"\n': {
        "dog/0": "Male speech, man speaking"
    },
    "file,label\ndog/0.wav,none\ncat/0.wav,NA\ncat/1.wav,\n": {
        "dog/0": "none",
        "cat/0": "NA",
    },
}


@pytest.mark.parametrize("table", TABLES)
def test_forms_of_tables(make, prepare, table):
    files = [*FILES, "0.wav", "1.wav", *(f"{name}.wav" for name in VGGSOUND)]
    assert labeled(prepare(make(files, table=table))) == TABLES[table]


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("", ""),
        ("file,label\n", ""),
        ("file,label,label\ndog/0.wav,a,b\n", "'label'"),
        ("file,note\ndog/0.wav,a\n", "'file,note'"),
        ("dog/0.wav,a,train\n", "'train'"),
        ("file,label\ndog/0.wav,[a]\n", "'.a.'"),
        ("file,label\ndog/0.wav,['a']\ncat/0.wav,b\n", "'b'"),
        ("file,label\ndog/0.wav,\"[{'start': 0}]\"\n", "start"),
        ("file,label\ndog/0.wav,['a;b']\n", "'a;b'"),
        ("file,one,flag\ndog/0.wav,q,1\n", "'file,one,flag'"),
        ("dog/0.wav,0.01,0.02,a\n", "line 1: .*'2' and '3'"),
        ("dog/0.wav HELLO\n", "separated by"),
        ("file,start,label\ndog/0.wav,0.01,a\n", "line 2: .*'start'"),
        ("file,label,offset\ndog/0.wav,a,3\n", "line 2: .*'offset'"),
        ("file,label,fold\ndog/0.wav,a,1\ncat/0.wav,b,\n", "line 3: "),
        ("file,label,fold\ndog/0.wav,a,../1\n", "line 2: .*'../1'"),
        ("file,label,fold\ndog/0.wav,a,x\n", "line 2: .*'x'"),
        ("file,label,split\ndog/0.wav,a,\ncat/0.wav,a,test\n", "line 2: .*''"),
        (
            "file,label,split\ndog/0.wav,a,train\ncat/0.wav,b,test\n./dog/0.wav,a,test\n",
            "line 4: .* line 2",
        ),
        ("file,label\nx/0.wav,a\ny.wav,b\n", "2 .*'x/0.wav': missing; .*data/x/0.wav"),
    ],
)
def test_tables_that_are_refused(make, prepare, table, fault):
    with pytest.raises(ManifestError, match=f"data/labels.csv: .*{fault}") as error:
        prepare(make(table=table))
    assert "\n" not in str(error.value)


def test_recordings_elsewhere(make, prepare, tmp_path, reasons):
    """A table beside its own recordings, which are not in the data folder."""
    write(tmp_path / "other" / "x.wav", 30)
    path = tmp_path / "other" / "t.csv"
    path.write_text(
        f"file,label,split\nx.wav,a,test\n{tmp_path}/data/dog/0.wav,b,train\n"
    )
    found = prepare(make(), labels=str(path))
    assert found["eval"] == {str(tmp_path / "other" / "x"): "a"}
    assert found["balanced_train"] == {"dog/0": "b"}
    assert len(found["pretrain"]) == len(FILES) and not reasons()


def test_the_last_line_counts_all_reasons(make, prepare, caplog, tmp_path):
    table = "file,label\ndog/0.wav,a\ncat/0.wav,b\ncat/1.wav,\ngone.wav,a\n0.wav,a\n"
    data = make(table=table)
    (data / "text.wav").write_text("no audio")
    with caplog.at_level(logging.INFO):
        prepare(data)
    last = caplog.messages[-1]
    assert last.startswith("Used: 8 of 11 ") and " 2 of them " in last
    for reason in ("1 no label", "1 missing", "1 ambiguous", "1 unreadable"):
        assert reason in last
    assert "'gone.wav'" in last and str(tmp_path / "save" / "skipped.csv") in last


# -- splits and folds ------------------------------------------------------------------


def test_all_three_splits(make, prepare):
    words = ("train", "Training", "dev", "val", "valid", "TEST", "evaluation", "eval")
    lines = [f"{f},{f[:3]},{w}\n" for f, w in zip(FILES, words, strict=True)]
    found = prepare(make(table="file,label,split\n" + "".join(lines)))
    sizes = {name: len(ids) for name, ids in found.items()}
    assert sizes == {"balanced_train": 2, "valid": 3, "eval": 3, "pretrain": 2}


def test_without_test_clips_the_validation_clips_are_for_evaluation(make, prepare):
    table = "file,label,split\ndog/0.wav,a,train\ncat/0.wav,a,val\n"
    found = prepare(make(table=table))
    assert found["eval"].keys() == {"cat/0"} and "valid" not in found


def test_folds(make, prepare):
    lines = [f"{f},{f[:3]},{i % 3 + 1}.0\n" for i, f in enumerate(FILES)]
    found = prepare(make(table="file,label,fold\n" + "".join(lines)))
    everything = {file.removesuffix(".wav") for file in FILES}
    folds = [found[f"eval_{k}"].keys() for k in (1, 2, 3)]
    assert set().union(*folds) == everything and sum(map(len, folds)) == len(FILES)
    for k, fold in enumerate(folds, start=1):
        assert found[f"balanced_train_{k}"].keys() == everything - fold
        assert found[f"pretrain_{k}"].keys() == everything - fold
    assert "eval" not in found and found["pretrain"].keys() == everything


def test_test_clips_are_in_no_fold(make, prepare):
    table = "file,label,fold,split\ndog/0.wav,a,1,train\ndog/1.wav,b,2,train\n"
    found = prepare(make(table=table + "cat/0.wav,a,1,test\ncat/1.wav,b,,test\n"))
    assert found["eval"].keys() == {"cat/0", "cat/1"}
    assert found["eval_1"].keys() == found["balanced_train_2"].keys() == {"dog/0"}


def test_a_second_table_for_testing(make, prepare):
    make(table="file,label\ncat/0.wav,a\ncat/1.wav,c\n", name="test.csv")
    data = make(table="file,label\ndog/0.wav,a\ndog/1.wav,b\n")
    found = prepare(data, test_labels="test.csv")
    assert found["balanced_train"].keys() == {"dog/0", "dog/1"}
    assert found["eval"] == {"cat/0": "a", "cat/1": "c"}
    make(table="file,label\n./dog/0.wav,a\n", name="test.csv")
    with pytest.raises(ManifestError, match=r"test.csv: 'dog/0.wav' .*labels.csv"):
        prepare(data, test_labels="test.csv")
    with pytest.raises(ManifestError, match="no.csv"):
        prepare(data, labels="no.csv")


def test_splits_of_folders_apply_to_tables_without_splits(make, prepare):
    table = "file,label\na,x\nb,y\nc,x\n"
    found = prepare(make(["train/a.wav", "train/b.wav", "test/c.wav"], table))
    assert found["eval"].keys() == {"test/c"}


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("x_30-40.wav", ("x", 30)),
        ("a/x_y_0.5-1.5.flac", ("x_y", 0.5)),
        ("Yabcdefghijk_30-40.wav", ("abcdefghijk", 30)),
        ("Y--PJHxphWEs.wav", ("--PJHxphWEs", None)),
        ("--PJHxphWEs_30.000_40.000.wav", ("--PJHxphWEs", 30)),
        ("--PJHxphWEs_30000_40000.wav", ("--PJHxphWEs", 30)),
        ("--PJHxphWEs_30.000.wav", ("--PJHxphWEs", 30)),
        ("--PJHxphWEs_30_40.wav", ("--PJHxphWEs", 30)),
        ("kitchen_fan_1_2.wav", ("kitchen_fan_1_2", None)),
        ("2024-05-06.wav", ("2024-05-06", None)),
        ("take_9-3.wav", ("take_9-3", None)),
    ],
)
def test_names_of_segments(name, segment):
    assert segment_of(name) == segment


def test_splits_by_hash_keep_sources_together_and_serve_all_classes():
    files = {
        f"{name}/{source}_{10 * i}-{10 * i + 10}.wav": Labeled((name,))
        for name in CLASSES
        for source in "abcdefgh"
        for i in range(3)
    }
    files |= {f"bird/{i}.wav": Labeled(("bird",)) for i in range(2)}
    files |= {f"owl/{i}.wav": Labeled(("owl",)) for i in range(500)}
    files["single/x.wav"] = Labeled(("single",))
    split = {file: line.split for file, line in split_by_hash(files, {}).items()}
    sides = {}
    for file, side in split.items():
        sides.setdefault(source_of(file), set()).add(side)
    assert all(len(found) == 1 for found in sides.values())
    for name in (*CLASSES, "bird", "owl"):
        found = {side for file, side in split.items() if file.startswith(name)}
        assert found == {"train", "test"}, name
    assert split["single/x.wav"] == "train"
    owls = [side for file, side in split.items() if file.startswith("owl")]
    assert owls.count("test") == pytest.approx(100, abs=36)  # 4 deviations
    backwards = dict(reversed(files.items()))
    assert {f: x.split for f, x in split_by_hash(backwards, {}).items()} == split


def test_copies_stay_together_and_are_told(make, prepare, caplog):
    data = make([f"{name}/{i}.wav" for name in CLASSES for i in range(12)])
    for i in range(12):  # in whichever split the originals are
        shutil.copy(data / "dog" / f"{i}.wav", data / "dog" / f"copy of {i}.wav")
    shutil.copy(data / "dog" / "0.wav", data / "cat" / "dog.wav")
    found = prepare(data)
    for manifest in ("balanced_train", "eval"):
        dogs = {clip for clip in found[manifest] if clip.startswith("dog/")}
        originals = {clip for clip in dogs if " " not in clip}
        assert originals
        copies = {clip.replace("/", "/copy of ") for clip in originals}
        assert dogs == originals | copies
    assert "different labels" in caplog.text
    table = "file,label,split\ndog/0.wav,a,train\ndog/copy of 0.wav,a,test\n"
    caplog.clear()
    prepare(make([], table))
    assert "1 recordings have copies in several splits" in caplog.text


def test_segments_in_several_splits_are_told(make, prepare, caplog):
    files = ["a_0-10.wav", "a_10-20.wav"]
    table = "file,label,split\na_0-10,x,train\na_10-20,x,test\n"
    prepare(make(files, table))
    assert all(file in caplog.text for file in files)


def test_fold_folders_apply_to_tables_and_missing_files_are_told(
    make, prepare, reasons
):
    files = [f"audio/fold{k}/{name}.wav" for k in (1, 2) for name in ("dog", "cat")]
    lines = [f"{file},{Path(file).stem}\n" for file in files]
    found = prepare(make(files, "file,label\n" + "".join(lines) + "gone.wav,dog\n"))
    assert found["eval_2"] == {"audio/fold2/dog": "dog", "audio/fold2/cat": "cat"}
    assert found["balanced_train_2"].keys() == {"audio/fold1/dog", "audio/fold1/cat"}
    assert reasons() == {"gone.wav": "missing"}
