"""One trial inside a Ray worker: train, report, say the cause of a failure."""

import ctypes
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from core.config import Runtime, parse_config, parse_section
from core.storage import NOWHERE_ELSE
from sweeps.grid import Trial
from sweeps.storage import SharedStorage, pull_data
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


def trial_settings(
    trial: Trial, runtime: Runtime, storage: SharedStorage | None = None
) -> dict[str, Any]:
    """A trial as the plain values that travel to a worker."""
    absolute = runtime.model_copy(update={"results": runtime.results.absolute()})
    return {
        "name": trial.name,
        "run_id": trial.run_id,
        "config": trial.config.model_dump(mode="json"),
        "runtime": absolute.model_dump(),
        "storage": storage.uri if storage else None,
        "working_folder": str(Path.cwd()),
    }


def own_slot(settings: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What the trial takes of a machine. Here, as a worker imports what this module imports."""
    return tune.PlacementGroupFactory([settings["trial"]["slot"]])


def train_trial(given: dict[str, Any], reports: "Reports") -> None:
    """Train what `trial_settings` was given in the run's own folder, or go on there."""
    from core.train import train_run  # torch is loaded in workers alone

    os.chdir(given["working_folder"])  # paths of a corpus may be relative to it
    config = parse_config(given["config"], given["name"])
    runtime = parse_section(Runtime, given["runtime"], given["name"])
    uri = given["storage"]
    storage = SharedStorage(uri, runtime.results) if uri else NOWHERE_ELSE
    pull_data(config.data, config.tree, runtime, storage)
    folder = Store(runtime.results).run_folder(given["run_id"])
    train_run(config, runtime, folder, reports.add, ORPHAN_WAIT, storage)
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
