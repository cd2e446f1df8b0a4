"""A progress bar on a terminal, two plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def follow(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items, while the bar or the lines say how far they are."""
    if sys.stderr.isatty():
        yield from track(items, what, total, console=Console(stderr=True), transient=True)
        return
    started = time.process_time()
    print(f"{what} ...", flush=True)
    yield from items
    seconds = time.process_time() - started
    print(f"{what}: {seconds:.1f} CPU seconds", flush=True)
