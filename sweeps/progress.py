"""What a person sees while a sweep runs: bars on a terminal, one line a finished run elsewhere."""

import time
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from core.record import RunRecord
from sweeps.grid import Trial
from sweeps.pace import show_seconds, work

Point = dict[str, float]


class Watcher(Protocol):
    """Learns what happens to the runs of a sweep; progress and tracking are watchers."""

    def start(self, trial: Trial) -> None:
        """A worker begins, or begins again, with a trial."""

    def log(self, trial: Trial, points: list[Point]) -> None:
        """New points of its loss curve: step, tokens, loss, lr, tokens_per_second."""

    def finish(self, trial: Trial, record: RunRecord) -> None:
        """It is done, diverged, failed or stopped early."""

    def close(self) -> None:
        """The sweep ends; what still runs was interrupted."""


class Pace:
    """Time left, from the work that this sweep has done so far."""

    def __init__(self, pending: Sequence[Trial]) -> None:
        self.started: float | None = None
        self.left = {trial.run_id: work(trial.config) for trial in pending}
        self.total = sum(self.left.values())

    def update(self, trial: Trial, tokens: float) -> None:
        """Note how far a trial is."""
        share = max(0.0, 1 - tokens / trial.config.train.tokens)
        self.left[trial.run_id] = min(self.left[trial.run_id], work(trial.config) * share)

    def begin(self) -> None:
        """The first trial starts; Ray's own start is no measure."""
        self.started = self.started or time.monotonic()

    def seconds_left(self) -> float | None:
        """None until there is something to go by."""
        left = sum(self.left.values())
        done = self.total - left
        if self.started is None or done <= 0:
            return None
        return (time.monotonic() - self.started) * left / done


def show_end(trial: Trial, record: RunRecord) -> str:
    """One line about a run that ended."""
    result = record.cause or f"test loss {record.loss_test_prefix:.4f}"
    return f"{record.status:<8} {trial.name}: {result}"


class Lines:
    """Plain lines, for logs and pipes."""

    def __init__(self, pending: Sequence[Trial], done: int, total: int) -> None:
        self.pace, self.done, self.total = Pace(pending), done, total

    def start(self, trial: Trial) -> None:
        """Only the clock needs it."""
        self.pace.begin()

    def log(self, trial: Trial, points: list[Point]) -> None:
        """Only the estimate needs them."""
        self.pace.update(trial, points[-1]["tokens"])

    def finish(self, trial: Trial, record: RunRecord) -> None:
        """One line a run."""
        self.done += 1
        self.pace.update(trial, trial.config.train.tokens)
        left = self.pace.seconds_left()
        shown = f", {show_seconds(left)} left" if left else ""
        print(f"[{self.done}/{self.total}{shown}] {show_end(trial, record)}", flush=True)

    def close(self) -> None:
        """Nothing is open."""


class Bars:
    """A bar over all runs and one a running trial."""

    def __init__(self, pending: Sequence[Trial], done: int, total: int, console: Console) -> None:
        self.pace = Pace(pending)
        self.tasks: dict[str, TaskID] = {}
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
        self.bars = Progress(*columns, console=console)
        self.overall = self.bars.add_task("all runs", total=total, completed=done, note="")
        self.bars.start()

    def start(self, trial: Trial) -> None:
        """A bar for the trial."""
        self.pace.begin()
        if trial.run_id not in self.tasks:
            self.tasks[trial.run_id] = self.bars.add_task(
                trial.name, total=trial.config.steps, note=""
            )

    def log(self, trial: Trial, points: list[Point]) -> None:
        """Step, loss and speed."""
        point = points[-1]
        self.pace.update(trial, point["tokens"])
        note = f"step {point['step']:.0f}, loss {point['loss']:.3f}"
        speed = f", {point['tokens_per_second']:,.0f} tokens/s"
        self.bars.update(self.tasks[trial.run_id], completed=point["step"], note=note + speed)
        self._note_overall()

    def finish(self, trial: Trial, record: RunRecord) -> None:
        """A line above the bars, and the trial's bar goes."""
        self.pace.update(trial, trial.config.train.tokens)
        self.bars.console.print(show_end(trial, record), markup=False, highlight=False)
        self.bars.remove_task(self.tasks.pop(trial.run_id))
        self.bars.advance(self.overall)
        self._note_overall()

    def close(self) -> None:
        """Give the terminal back."""
        self.bars.stop()

    def _note_overall(self) -> None:
        task = self.bars.tasks[0]
        left = self.pace.seconds_left()
        shown = f", {show_seconds(left)} left" if left else ""
        self.bars.update(self.overall, note=f"{task.completed:.0f} of {task.total:.0f}{shown}")


def open_progress(pending: Sequence[Trial], total: int) -> Watcher:
    """Bars on a terminal, lines elsewhere."""
    console, done = Console(), total - len(pending)
    if console.is_terminal:
        return Bars(pending, done, total, console)
    return Lines(pending, done, total)
