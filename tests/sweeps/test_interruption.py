"""Who hears Ctrl-C, and when."""

import os
import signal

import pytest

from sweeps.interruption import SIGNALS, Interrupted, interruptible, unguarded


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_interrupts_the_sweep_at_once_or_at_the_end_of_a_step(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted), interruptible():
        os.kill(os.getpid(), number)
    with interruptible() as interruption:
        interruption.deferred = True
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted):
            interruption.check()
    assert signal.getsignal(number) is before


def test_code_that_may_hang_is_ended_by_the_system() -> None:
    with interruptible() as interruption:
        with unguarded():
            assert {signal.getsignal(number) for number in SIGNALS} == {signal.SIG_DFL}
        assert {signal.getsignal(number) for number in SIGNALS} == {interruption}
