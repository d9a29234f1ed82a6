"""`eat neighbors`: similarities are scikit-learn's, in its order."""

import json

import numpy as np
import pytest
import soundfile
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import StandardScaler

import eat
from eat.commands.neighbors import similarities


def expected(query, gallery):
    scaler = StandardScaler().fit(gallery)
    return cosine_similarity(scaler.transform(query[None]), scaler.transform(gallery))[
        0
    ]


def neighbors(eat_command, *arguments):
    status, out, err = eat_command("neighbors", *arguments, "--json")
    assert status == 0, err
    return {row["path"]: row["similarity"] for row in map(json.loads, out.splitlines())}


@pytest.fixture
def encode(tagger):
    model = eat.from_pretrained(tagger, device="cpu")
    return lambda path, **options: model.encode_file(path, **options).numpy()


def test_similarities_are_scikit_learns():
    random = np.random.default_rng(0)
    gallery, query = random.normal(3, 2, (20, 6)), random.normal(size=6)
    assert similarities(query, gallery) == pytest.approx(expected(query, gallery))


def test_similarities_of_few_or_constant_or_missing_features():
    query = np.array([1.0, 2.0])
    assert similarities(query, query[None]) == pytest.approx([1])
    assert similarities(query, np.array([[1.0, 2], [1, 3], [1, 5]]))[0] == 1
    found = similarities(query, np.array([[1.0, 2], [np.nan] * 2, [0, 3]]))
    assert np.isnan(found).tolist() == [False, True, False]


def test_neighbors_of_a_file(eat_command, tagger, sounds, tmp_path, encode):
    query = tmp_path / "query.wav"
    wav, rate = soundfile.read(sounds / "0" / "4.wav")
    soundfile.write(query, wav + 1e-4, rate)
    paths = sorted(sounds.rglob("[0-9].wav"))
    options = {"pooling": "mean", "layers": 0}
    arguments = ("--pooling", "mean", "--layers", "0", "--top", "3")
    found = neighbors(eat_command, tagger, query, sounds, *arguments)
    gallery = np.stack([encode(path, **options) for path in paths])
    scores = expected(encode(query, **options), gallery)
    names = [str(paths[row]) for row in np.argsort(-scores)[:3]]
    assert names[0] == str(sounds / "0" / "4.wav")
    assert list(found) == names
    best = np.sort(scores)[::-1][:3]
    assert list(found.values()) == pytest.approx(best, abs=1e-4)


def test_the_file_itself_is_left_out(eat_command, tagger, sounds):
    query = sounds / "0" / "0.wav"
    found = neighbors(eat_command, tagger, query, sounds)
    assert len(found) == 7 and str(query) not in found


def test_unreadable_recordings_are_left_out(eat_command, tagger, sounds):
    (sounds / "bad.wav").write_text("no sound")
    status, out, _ = eat_command("neighbors", tagger, sounds / "0" / "0.wav", sounds)
    assert status == 1
    assert len(out.splitlines()) == 7


@pytest.fixture
def features(eat_command, tagger, sounds, tmp_path):
    """Features of the mean of the last layer."""
    folder = tmp_path / "features"
    eat_command("features", tagger, sounds, "--out", folder, "--pooling", "mean")
    return folder


def test_features_written_before(eat_command, tagger, sounds, features):
    query = sounds / "0" / "0.wav"
    found = neighbors(eat_command, tagger, query, features)
    computed = neighbors(eat_command, tagger, query, sounds, "--pooling", "mean")
    assert list(found) == list(computed)
    assert found == pytest.approx(computed, abs=1e-5)


@pytest.mark.parametrize("case", ["model", "layer", "missing", "layers"])
def test_other_features_are_refused(
    eat_command, tagger, sounds, features, parity_folder, case
):
    model, arguments = tagger, ()
    if case == "model":
        model = parity_folder / "official_pretrain.pt"
    elif case == "layer":
        arguments = ("--layers", "0")
    elif case == "missing":
        (features / "features.npy").unlink()
    else:
        np.save(features / "features.npy", np.zeros((8, 2, 3)))
    query = sounds / "0" / "0.wav"
    status, out, err = eat_command("neighbors", model, query, features, *arguments)
    assert status == 1 and not out
    assert "features" in err and len(err.splitlines()) == 1
