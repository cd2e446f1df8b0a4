"""How a sweep is interrupted, from outside or at a time that was given."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SOONEST = 1e-3  # seconds; zero would turn a timer off


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or the end of the time given: what was running goes on from its checkpoint
    next time."""


class Interruption:
    """Ctrl-C, SIGTERM and an alarm end the sweep once, in order.

    While Ray runs they wait for the end of a step: an exception out of Ray's compiled code would
    come back as another one.
    """

    def __init__(self) -> None:
        self.asked = self.deferred = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        for other in (*SIGNALS, signal.SIGALRM):
            signal.signal(other, signal.SIG_IGN)
        self.asked = True
        if not self.deferred:
            raise Interrupted

    def check(self) -> None:
        """Raise what was put off."""
        if self.asked:
            raise Interrupted


@contextmanager
def _handled_by(
    handler: Callable[[int, FrameType | None], None] | signal.Handlers,
    numbers: Sequence[signal.Signals] = SIGNALS,
) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def unguarded() -> Iterator[None]:
    """Signals end the process at once: for compiled code that may hang and hears nothing else."""
    with _handled_by(signal.SIG_DFL):
        yield


@contextmanager
def interruptible(until: float | None = None) -> Iterator[Interruption]:
    """Signals go to an Interruption, and back to who had them; so does an alarm at the Unix time
    `until`."""
    interruption = Interruption()
    with _handled_by(interruption, (*SIGNALS, signal.SIGALRM)):
        if until is not None:
            signal.setitimer(signal.ITIMER_REAL, max(until - time.time(), SOONEST))
        try:
            yield interruption
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
