"""Independent parts of a task: who does what, and which are missing."""

import argparse

import pytest

from eat.utils.parts import WHOLE, Part, add_part_options, ranges


@pytest.fixture
def parse():
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_part_options(parser)
    return lambda *words: parser.parse_args(words).part


def test_options(parse):
    assert parse() == WHOLE
    assert parse("--part", "3/16") == (3, 16)
    assert parse("--merge", "16") == (0, 16)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/2/3", "-1/2", ""])
def test_invalid_part(parse, text):
    with pytest.raises(argparse.ArgumentError, match="--part"):
        parse(f"--part={text}")


@pytest.mark.parametrize("words", [["--merge=0"], ["--merge=1/2"], ["--merge="]])
def test_invalid_merge(parse, words):
    with pytest.raises(argparse.ArgumentError, match="--merge"):
        parse(*words)


@pytest.mark.parametrize("total", [1, 3, 7, 50])
def test_every_item_belongs_to_one_part(total):
    items = range(20)
    shares = [Part(number, total).share(items) for number in range(1, total + 1)]
    assert sorted(item for share in shares for item in share) == [*items]
    assert not Part(0, total).share(items)
    for number, share in enumerate(shares, 1):  # what is missing names its part
        text = WHOLE._replace(total=total).missing(share)
        assert f"--part {number}/{total})" in text if share else not text


@pytest.mark.parametrize("total", [1, 3])
def test_processes_divide_a_part(total):
    """Item n is of part ``n // processes``, as the message needs it."""
    items, ranks = range(20), 2
    for number in range(1, total + 1):
        for rank in range(ranks):
            for item in Part(number, total).among(rank, ranks).share(items):
                assert item // ranks % total + 1 == number and item % ranks == rank
    assert not Part(0, total).among(1, ranks).share(items)


def test_numbers_as_slurm_takes_them():
    assert ranges([]) == "" and ranges([4]) == "4" and ranges([1, 2]) == "1,2"
    assert ranges([1, 3, 5, 6, 7, 8, 10, 11]) == "1,3,5-8,10,11"
