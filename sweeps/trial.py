"""One trial inside a Ray worker: train, report, say the cause of a failure."""

import ctypes
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from core.config import Runtime, parse_config
from sweeps.grid import Trial
from sweeps.store import Store

# Seconds between reports to the driver: each costs a round trip, and nobody reads faster.
REPORT_EVERY = 1.0
# Seconds to wait for the worker of a killed driver to notice and let go of the run.
ORPHAN_WAIT = 60.0


def run_trial(settings: dict[str, Any]) -> None:
    """The function that Ray Tune calls with what `trial_settings` made.

    An exception is reported as the run's failure and does not come back as an error, so that Ray
    retries crashes of the worker and nothing else.
    """
    try:
        train_trial(settings["trial"], Reports(tune.report))
    except Exception as error:  # whatever it is, the sweep's other runs go on
        tune.report({"failure": f"{type(error).__name__}: {error}"})
    finally:
        _give_memory_back()


def _give_memory_back() -> None:
    """What the allocator keeps for the next step would add up over the runs of a worker."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim:
        trim(0)


def trial_settings(trial: Trial, runtime: Runtime) -> dict[str, Any]:
    """A trial as the plain values that travel to a worker."""
    return {
        "name": trial.name,
        "run_id": trial.run_id,
        "config": trial.config.model_dump(mode="json"),
        "device": runtime.device,
        "results": str(runtime.results.absolute()),
        "processes": runtime.processes,
        "checkpoint_seconds": runtime.checkpoint_seconds,
        "working_folder": str(Path.cwd()),
    }


def train_trial(given: dict[str, Any], reports: "Reports") -> None:
    """Train what `trial_settings` was given in the run's own folder, or go on there."""
    from core.train import train_run  # torch is loaded in workers alone

    os.chdir(given["working_folder"])  # paths of a corpus may be relative to it
    runtime = Runtime(
        device=given["device"],
        processes=given["processes"],
        results=Path(given["results"]),
        checkpoint_seconds=given["checkpoint_seconds"],
    )
    config = parse_config(given["config"], given["name"])
    folder = Store(runtime.results).run_folder(given["run_id"])
    train_run(config, runtime, folder, reports.add, ORPHAN_WAIT)
    reports.flush()


class Reports:
    """Gathers points of the loss curve and hands them to the driver once a second.

    `send` takes them there; processes that send together have `agree` on when.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], None],
        agree: Callable[[bool], bool] = lambda due: due,
    ) -> None:
        self.send, self.agree = send, agree
        self.points: list[dict[str, float]] = []
        self.sent = time.monotonic()

    def add(self, point: dict[str, float]) -> None:
        """Take one point."""
        self.points.append(point)
        if self.agree(time.monotonic() - self.sent >= REPORT_EVERY):
            self.flush()

    def flush(self) -> None:
        """Send what has gathered."""
        if self.points:
            self.send({"points": self.points})
        self.points, self.sent = [], time.monotonic()
