"""A slot whose worker died is filled again while the other slots are busy."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune

from sweeps.scheduling import InOrder


@pytest.fixture
def two_slots(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class Busy(tune.Callback):  # type: ignore[misc]
    """Marks the moment after the loss at which two trials run at once."""

    def __init__(self, both: Path) -> None:
        self.both, self.lost, self.running = both, False, set[str]()

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.running.add(trial.trial_id)
        if self.lost and len(self.running) == 2:
            self.both.touch()

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.lost = True
        self.running.discard(trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.running.discard(trial.trial_id)


def test_trials_shorter_than_the_start_of_a_worker(two_slots: None, tmp_path: Path) -> None:
    died, both = tmp_path / "died", tmp_path / "both"

    def short(settings: dict[str, int]) -> None:
        if settings["number"] == 0 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if not both.exists():
            time.sleep(0.3)

    tune.Tuner(
        tune.with_resources(short, {"cpu": 1}),
        param_space={"number": tune.grid_search(list(range(100)))},
        tune_config=tune.TuneConfig(scheduler=InOrder(), reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path / "tune"),
            callbacks=[Busy(both)],
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    ).fit()
    assert died.exists()
    assert both.exists()
