"""One trial inside a Ray worker: train, report, say the cause of a failure."""

import ctypes
import gc
import os
import time
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
    given = settings["trial"]
    os.chdir(given["working_folder"])  # paths of a corpus may be relative to it
    config = parse_config(given["config"], given["name"])
    trial = Trial(given["arm"], given["name"], given["run_id"], config)
    runtime = Runtime(
        device=given["device"],
        results=Path(given["results"]),
        checkpoint_seconds=given["checkpoint_seconds"],
    )
    try:
        _train(trial, runtime)
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
        "arm": trial.arm,
        "name": trial.name,
        "run_id": trial.run_id,
        "config": trial.config.model_dump(mode="json"),
        "device": runtime.device,
        "results": str(runtime.results.absolute()),
        "checkpoint_seconds": runtime.checkpoint_seconds,
        "working_folder": str(Path.cwd()),
    }


def _train(trial: Trial, runtime: Runtime) -> None:
    from core.train import train_run  # torch is loaded in workers alone

    folder, reports = Store(runtime.results).run_folder(trial.run_id), Reports()
    train_run(trial.config, runtime, folder, reports.add, ORPHAN_WAIT)
    reports.flush()


class Reports:
    """Gathers points of the loss curve and hands them to the driver once a second."""

    def __init__(self) -> None:
        self.points: list[dict[str, float]] = []
        self.sent = time.monotonic()

    def add(self, point: dict[str, float]) -> None:
        """Take one point."""
        self.points.append(point)
        if time.monotonic() - self.sent >= REPORT_EVERY:
            self.flush()

    def flush(self) -> None:
        """Send what has gathered."""
        if self.points:
            tune.report({"points": self.points})
        self.points, self.sent = [], time.monotonic()
