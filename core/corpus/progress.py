"""A progress bar on a terminal, two log lines elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")

log = logging.getLogger(__name__)


def follow(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items, while the terminal or the log says how far they are."""
    started = time.process_time()
    log.info("%s ...", what)
    if sys.stderr.isatty():
        yield from track(items, what, total, console=Console(stderr=True), transient=True)
    else:
        yield from items
    log.info("%s: %.1f CPU seconds", what, time.process_time() - started)
