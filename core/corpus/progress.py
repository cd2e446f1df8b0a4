"""A progress bar on a terminal, elsewhere a line for what took its time; on standard error."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")
WORTH_A_LINE = 1.0  # CPU seconds


def follow(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items, while the bar or the line says how far they are."""
    if sys.stderr.isatty():
        yield from track(items, what, total, console=Console(stderr=True), transient=True)
        return
    started = time.process_time()
    yield from items
    seconds = time.process_time() - started
    if seconds >= WORTH_A_LINE:
        print(f"{what}: {seconds:.1f} CPU seconds", file=sys.stderr, flush=True)
