"""Streams in batches."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items in their order, the last one shorter (itertools has it from 3.12)."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
