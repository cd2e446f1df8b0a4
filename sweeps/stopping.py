"""How a sweep is stopped from outside."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM: what was running goes on from its checkpoint next time."""


class Interruption:
    """Ctrl-C and SIGTERM end the sweep once, in order.

    While Ray runs they wait for the end of a step: an exception out of Ray's compiled code would
    come back as another one.
    """

    def __init__(self) -> None:
        self.asked = self.deferred = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        self.asked = True
        if not self.deferred:
            raise Stopped

    def check(self) -> None:
        """Raise what was put off."""
        if self.asked:
            raise Stopped


@contextmanager
def stoppable() -> Iterator[Interruption]:
    """Signals go to an Interruption, and back to who had them."""
    interruption = Interruption()
    before = {number: signal.signal(number, interruption) for number in SIGNALS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
