"""Who hears Ctrl-C, and when."""

import os
import signal
import time

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


def test_the_end_of_the_time_given_interrupts_as_a_signal_does() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(Interrupted), interruptible(until=time.time()):
        time.sleep(3600)
    with interruptible(until=time.time() + 3600) as interruption:
        interruption.deferred = True
        with unguarded():
            os.kill(os.getpid(), signal.SIGALRM)
        with pytest.raises(Interrupted):
            interruption.check()
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is before


def test_an_alarm_while_a_sweep_winds_down_changes_nothing() -> None:
    with interruptible(until=time.time() + 3600):
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGALRM)


def test_code_that_may_hang_is_ended_by_the_system() -> None:
    with interruptible() as interruption:
        with unguarded():
            assert {signal.getsignal(number) for number in SIGNALS} == {signal.SIG_DFL}
        assert {signal.getsignal(number) for number in SIGNALS} == {interruption}
