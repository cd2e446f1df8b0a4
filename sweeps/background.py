"""A watcher whose work is done in a thread, so that no trial waits for it."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

from core.record import RunRecord
from sweeps.grid import Trial
from sweeps.progress import Point, Watcher


class Background:
    """Opens a watcher at the first point of a curve, and tells it in order what it is told itself:
    while trials come up, the processors are theirs.

    What the watcher raises is raised by a later call, and by `close` at the latest.
    """

    def __init__(self, opened: Callable[[], Watcher]) -> None:
        self.watcher = cache(opened)
        self.thread = ThreadPoolExecutor(1)
        self.waiting: list[Callable[[], None]] = []
        self.calls: deque[Future[None]] = deque()

    def start(self, trial: Trial) -> None:
        """Keep it until there is more to tell."""
        self.waiting.append(self._call("start", trial))

    def log(self, trial: Trial, points: list[Point]) -> None:
        """Pass it on."""
        self._tell(self._call("log", trial, points))

    def finish(self, trial: Trial, record: RunRecord) -> None:
        """Pass it on."""
        self._tell(self._call("finish", trial, record))

    def close(self) -> None:
        """Once the watcher has heard everything."""
        self._tell(self._call("close"))
        self.thread.shutdown()
        self._check()

    def _call(self, name: str, *given: Any) -> Callable[[], None]:
        return lambda: getattr(self.watcher(), name)(*given)

    def _tell(self, call: Callable[[], None]) -> None:
        self._check()
        self.calls += [self.thread.submit(each) for each in [*self.waiting, call]]
        self.waiting.clear()

    def _check(self) -> None:
        while self.calls and self.calls[0].done():
            self.calls.popleft().result()
