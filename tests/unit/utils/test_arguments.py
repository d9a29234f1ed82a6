"""Numbers on a command line are in range, or the option is named."""

import argparse

import pytest

from eat.utils.arguments import integer, number


@pytest.fixture
def parse():
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--clips", type=integer(1))
    parser.add_argument("--workers", type=integer(0, 64))
    parser.add_argument("--std", type=number(0.1, 10))
    return parser.parse_args


def test_numbers_in_range(parse):
    options = parse("--clips 9 --workers 0 --std 1e-1".split())
    assert (options.clips, options.workers, options.std) == (9, 0, 0.1)


@pytest.mark.parametrize("name", ["clips", "workers", "std"])
@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1e99", "x", "", "9" * 5000])
def test_absurd_numbers(parse, name, text):
    with pytest.raises(argparse.ArgumentError, match=f"--{name}"):
        parse([f"--{name}={text}"])
