"""Other programs read from each format what `encode_file` returns."""

import csv
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import soundfile

import eat
from eat import cli

CLOSE = {"atol": 1e-5, "rtol": 0}
SECONDS = {"a.wav": 0.7, "sub/b.wav": 1.2, "sub/long, 1.flac": 5.3}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Two recordings shorter than the model, one longer, one unreadable."""
    folder, random = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    (folder / "sub").mkdir()
    for name, seconds in SECONDS.items():
        wav = random.uniform(-0.3, 0.3, round(seconds * 16000))
        soundfile.write(folder / name, wav, 16000)
    (folder / "sub" / "c.wav").write_text("not audio")
    return folder


@pytest.fixture(scope="module")
def checkpoint(parity_folder):
    return parity_folder / "official_pretrain.pt"


@pytest.fixture(scope="module")
def model(checkpoint):
    return eat.from_pretrained(checkpoint, device="cpu")


@pytest.fixture
def write(sounds, checkpoint, tmp_path):
    """Run `eat features` on the recordings; returns the output."""

    def run(out, *options):
        command = ["features", checkpoint, sounds, "--out", tmp_path / out, *options]
        with pytest.raises(SystemExit, match="1"):  # one cannot be read
            cli.main([*map(str, command), "--device", "cpu", "--batch_size", "3"])
        return tmp_path / out

    return run


def expected_rows(model, sounds, **options):
    """Rows of a table: path, layer, start, end, features."""
    for name in SECONDS:
        features = model.encode_file(sounds / name, **options)
        values = features.numpy()
        if options.get("granularity", "clip") == "clip":
            values = np.expand_dims(values, -2)
        if isinstance(options.get("layers", -1), int):
            values = values[None]
        for time, (start, end) in enumerate(features.times.tolist()):
            for layer, of_layer in zip(features.layers, values, strict=True):
                yield name, layer, start, end, of_layer[time]


def check(table, features, model, sounds, **options):
    """Compare a data frame and its features with what the model gives."""
    expected = [*expected_rows(model, sounds, **options)]
    assert [*table["path"]] == [row[0] for row in expected]
    if "layer" in table:
        assert [*table["layer"]] == [row[1] for row in expected]
    np.testing.assert_array_equal(table[["start", "end"]], [r[2:4] for r in expected])
    np.testing.assert_allclose(features, [row[4] for row in expected], **CLOSE)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"granularity": "frames", "layers": [0, 2], "window": 0.64, "overlap": 0.5},
        {"granularity": "patches", "pad_to": "clip"},
    ],
)
def test_parquet(write, model, sounds, options):
    words = [w for name, v in options.items() for w in (f"--{name}", v)]
    words = [",".join(map(str, w)) if isinstance(w, list) else w for w in words]
    out = write("f.parquet", *words)
    table = pd.read_parquet(out)
    check(table, np.stack(table["features"]), model, sounds, **options)
    assert ("layer" in table) == ("layers" in options)
    kind = pq.read_schema(out).field("features").type
    assert (str(kind.value_type), kind.list_size) == ("float", 48)


def test_csv(write, model, sounds):
    options = {"granularity": "frames", "hop_ms": 40, "layers": [-1, 0]}
    words = ("--granularity", "frames", "--hop_ms", 40, "--layers=-1,0")
    out = write("f.CSV", *words)
    table = pd.read_csv(out)
    assert [*table.columns[:5]] == ["path", "layer", "start", "end", "f0"]
    check(table, table.loc[:, "f0":], model, sounds, **options)


def test_json_lines(write, model, sounds):
    lines = write("f.jsonl", "--pooling", "both", "--layers", "1").read_text()
    table = pd.DataFrame(map(json.loads, lines.splitlines()))
    features = np.stack(table["features"])
    assert [*table] == ["path", "start", "end", "features"] and features.shape[1] == 96
    check(table, features, model, sounds, pooling="both", layers=1)


def test_an_array_with_layers(write, model, sounds):
    found = np.load(write("f.npy", "--layers", "all"))
    assert found.shape == (4, 3, 48) and found.dtype == np.float32
    assert np.isnan(found[2]).all()  # sub/c.wav
    for row, name in zip((0, 1, 3), SECONDS, strict=True):
        expected = model.encode_file(sounds / name, layers="all").numpy()
        np.testing.assert_allclose(found[row], expected, **CLOSE)


@pytest.mark.parametrize("granularity", ["frames", "patches"])
def test_a_folder_of_arrays(write, model, sounds, granularity):
    out = write("out", "--granularity", granularity, "--layers", "0,-1")
    table = pd.read_csv(out / "frames.csv")
    with open(out / "clips.csv", newline="") as file:
        parts = {line["path"]: int(line["parts"]) for line in csv.DictReader(file)}
    for name in SECONDS:
        expected = model.encode_file(
            sounds / name, granularity=granularity, layers=[0, -1]
        )
        found = np.load(out / "features" / f"{name}.npy")
        np.testing.assert_allclose(found, expected.numpy(), **CLOSE)
        times = table[table["path"] == name]
        np.testing.assert_array_equal(times[["start", "end"]], expected.times)
        assert [*times["index"]] == [*range(found.shape[1])]
        assert parts[name] == found.shape[1]
    assert parts["sub/c.wav"] == 0
    assert len([*(out / "features").rglob("*.npy")]) == 3


def test_ids_that_are_no_file_names(sounds, checkpoint, tmp_path):
    rows = ["ID,duration,wav,labels", "../up,1,$data_root/a.wav,"]
    rows += ["/music/b,1,$data_root/sub/b.wav,"]
    (tmp_path / "m.csv").write_text("\n".join(rows))
    command = ["features", checkpoint, tmp_path / "m.csv", "--data_root", sounds]
    command += ["--out", tmp_path / "out", "--granularity", "frames", "--device", "cpu"]
    cli.main([*map(str, command)])
    names = {p.name for p in (tmp_path / "out" / "features").iterdir()}
    assert names == {"..%2Fup.npy", "%2Fmusic%2Fb.npy"}
