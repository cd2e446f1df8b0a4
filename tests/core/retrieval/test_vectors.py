"""The vector cache: nothing twice, nothing lost, nothing mixed up."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from core.retrieval import vectors as module
from core.retrieval.vectors import VectorCache


def lengths(texts: list[str]) -> np.ndarray:
    """A vector that tells which text it is of."""
    sums = [sum(ord(letter) * (place + 1) for place, letter in enumerate(t)) for t in texts]
    return np.array(
        [[len(text), total] for text, total in zip(texts, sums, strict=True)], np.float32
    )


class Recorder:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.seen += texts
        return lengths(texts)


TEXTS = [f"text number {i % 40} {'x' * (i % 40)}" for i in range(100)]


def test_each_text_is_computed_once_and_order_is_kept(tmp_path: Path) -> None:
    compute = Recorder()
    for texts in (TEXTS[:10], TEXTS, TEXTS[::-1]):
        got = VectorCache(tmp_path / "deep" / "v.sqlite", 2).embed(iter(texts), compute)
        np.testing.assert_array_equal(got, lengths(texts))
    assert sorted(compute.seen) == sorted(set(TEXTS))


def test_nothing_asked_gives_no_rows(tmp_path: Path) -> None:
    assert VectorCache(tmp_path / "v.sqlite", 5).embed([], lengths).shape == (0, 5)


def test_batches_finished_before_a_crash_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 10)
    calls = Recorder()

    def crash(texts: list[str]) -> np.ndarray:
        if len(calls.seen) >= 20:
            raise KeyboardInterrupt
        return calls(texts)

    cache = VectorCache(tmp_path / "v.sqlite", 2)
    with pytest.raises(KeyboardInterrupt):
        cache.embed(TEXTS[:40], crash)
    rest = Recorder()
    np.testing.assert_array_equal(cache.embed(TEXTS[:40], rest), lengths(TEXTS[:40]))
    assert rest.seen == TEXTS[20:40]


def fill(file: Path, texts: list[str]) -> None:
    module.BATCH = 5  # many transactions
    VectorCache(file, 2).embed(texts, lengths)


def test_two_processes_fill_one_file(tmp_path: Path) -> None:
    file = tmp_path / "v.sqlite"
    context = multiprocessing.get_context("spawn")
    texts = [f"document {i}" for i in range(400)]
    orders = (texts, texts[::-1])
    processes = [context.Process(target=fill, args=(file, order)) for order in orders]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    never = Recorder()
    np.testing.assert_array_equal(VectorCache(file, 2).embed(texts, never), lengths(texts))
    assert never.seen == []
