"""What a watcher in the background hears, and what becomes of its errors."""

import threading
from pathlib import Path
from typing import Any

import pytest

from core.record import RunRecord
from sweeps.background import Background
from sweeps.grid import Trial, load_grid


class Listener:
    """Writes down what it hears, and in which thread."""

    def __init__(self, heard: list[Any]) -> None:
        self.heard = heard
        self.hear("open")

    def hear(self, *what: Any) -> None:
        assert threading.current_thread() is not threading.main_thread()
        self.heard.append(what)

    def start(self, trial: Trial) -> None:
        self.hear("start", trial.run_id)

    def log(self, trial: Trial, points: list[dict[str, float]]) -> None:
        self.hear("log", trial.run_id, points)

    def finish(self, trial: Trial, record: RunRecord) -> None:
        self.hear("finish", trial.run_id, record.run_id)

    def close(self) -> None:
        self.hear("close")


@pytest.fixture
def trials(tiny: Path) -> list[Trial]:
    return load_grid(str(tiny)).trials


def test_all_is_told_in_order_and_nothing_before_the_first_point(trials: list[Trial]) -> None:
    heard: list[Any] = []
    first, second = trials[0].run_id, trials[1].run_id
    background = Background(lambda: Listener(heard))
    background.start(trials[0])
    background.start(trials[1])
    assert not background.calls and not heard
    background.log(trials[1], [{"loss": 3.0}])
    background.finish(trials[1], RunRecord(run_id=second))
    background.close()
    assert heard == [
        ("open",),
        ("start", first),
        ("start", second),
        ("log", second, [{"loss": 3.0}]),
        ("finish", second, second),
        ("close",),
    ]


def test_a_sweep_with_nothing_to_tell_opens_and_closes(trials: list[Trial]) -> None:
    """What an earlier sweep could not deliver is delivered in opening."""
    heard: list[Any] = []
    Background(lambda: Listener(heard)).close()
    assert heard == [("open",), ("close",)]


def test_an_error_comes_back_to_the_sweep(trials: list[Trial]) -> None:
    class Broken(Listener):
        def log(self, trial: Trial, points: list[dict[str, float]]) -> None:
            raise ZeroDivisionError

    background = Background(lambda: Broken([]))
    background.log(trials[0], [])
    with pytest.raises(ZeroDivisionError):
        background.close()
