"""Items are read ahead in threads, and put into batches of similar length."""

import threading

import pytest

from eat.inference.reading import batches, read_ahead


@pytest.mark.parametrize("num_threads", [0, 3])
def test_items_come_in_order_and_few_are_read_ahead(num_threads):
    started = []

    def read(item):
        started.append(item)
        return 10 * item

    found = read_ahead(read, range(100), num_threads, ahead=4)
    assert [next(found) for _ in range(20)] == [10 * item for item in range(20)]
    assert len(started) <= 25
    found.close()


def test_the_caller_may_stop_while_a_slow_item_is_read(monkeypatch):
    monkeypatch.setattr("eat.inference.reading.POLL_SECONDS", 0.01)
    read = threading.Event()

    def stop():
        raise KeyboardInterrupt

    found = read_ahead(lambda item: read.wait(60), [1], 1, 1, stop)
    with pytest.raises(KeyboardInterrupt):
        next(found)
    read.set()


def test_items_of_similar_length_are_batched():
    words = ["ccc", "a", "dddd", "bb", "e"]
    assert [*batches(words, 2)] == [["ccc", "a"], ["dddd", "bb"], ["e"]]
    assert [*batches(words, 2, len)] == [["a", "e"], ["bb", "ccc"], ["dddd"]]
