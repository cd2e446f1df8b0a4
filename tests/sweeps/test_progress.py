"""Bars on a terminal, lines elsewhere, and an estimate from the work that was done."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from core.record import Status
from sweeps.grid import Trial, load_grid
from sweeps.pace import show_seconds, work
from sweeps.progress import Bars, Lines, Pace, open_progress
from tests.sweeps.test_store import record_of


@pytest.fixture
def pending(tiny: Path) -> tuple[Trial, ...]:
    return load_grid(str(tiny)).trials


def test_time_left_is_in_proportion_to_the_work_left(
    pending: tuple[Trial, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([100.0, 160.0])
    monkeypatch.setattr("sweeps.progress.time.monotonic", lambda: next(now))
    pace = Pace(pending)
    assert pace.seconds_left() is None
    pace.begin()
    pace.update(pending[0], pending[0].config.train.tokens / 2)
    done = work(pending[0].config) / 2
    total = sum(work(trial.config) for trial in pending)
    assert pace.seconds_left() == pytest.approx(60 * (total - done) / done)


def test_off_a_terminal_a_finished_run_is_a_line(
    pending: tuple[Trial, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    watcher = open_progress(pending[1:], total=4)
    assert isinstance(watcher, Lines)
    watcher.start(pending[1])
    watcher.log(pending[1], [{"step": 1, "tokens": 100, "loss": 5.0}])
    watcher.finish(pending[1], record_of(pending[1]))
    watcher.start(pending[2])
    failed = record_of(pending[2], status=Status.FAILED, cause="OSError: disk full")
    watcher.finish(pending[2], failed)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("[2/4")
    assert lines[0].endswith("done     dense d16 seed 1: test loss 3.2500")
    assert lines[1].endswith("failed   ffn d16 memory.lr 0.01 seed 0: OSError: disk full")


def test_on_a_terminal_bars_show_what_runs(pending: tuple[Trial, ...]) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=150)
    bars = Bars(pending, 0, 4, console)
    bars.start(pending[0])
    point = {"step": 7, "tokens": 1000, "loss": 4.25, "tokens_per_second": 31_000}
    bars.log(pending[0], [point])
    bars.bars.refresh()
    assert "step 7, loss 4.250, 31,000 tokens/s" in written.getvalue()
    bars.start(pending[0])  # its worker died and another took over
    bars.finish(pending[0], record_of(pending[0]))
    bars.close()
    assert "done     dense d16 seed 0: test loss 3.2500" in written.getvalue()
    assert "1 of 4" in written.getvalue()
    assert len(bars.bars.tasks) == 1


@pytest.mark.parametrize(
    ("seconds", "shown"), [(4.2, "4 s"), (89, "89 s"), (720, "12 min"), (12_240, "3.4 h")]
)
def test_durations_read_well(seconds: float, shown: str) -> None:
    assert show_seconds(seconds) == shown
