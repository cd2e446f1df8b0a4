"""One trial inside a Ray worker: train, report, say the cause of a failure."""

import ctypes
import gc
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray import tune

from core.config import Runtime, parse_config
from core.storage import NOWHERE_ELSE
from sweeps.grid import Trial
from sweeps.paths import agreed_paths, measure
from sweeps.storage import SharedStorage, pull_data
from sweeps.store import Store

# Seconds between reports to the driver: each costs a round trip, and nobody reads faster.
REPORT_EVERY = 1.0
# Seconds to wait for the worker of a killed driver to notice and let go of the run.
ORPHAN_WAIT = 60.0


def run_trial(point: dict[str, str]) -> None:
    """The function that Ray Tune calls with a point of what `as_grid` made.

    An exception is reported as the run's failure and does not come back as an error, so that Ray
    retries crashes of the worker and nothing else.
    """
    try:
        train_trial(settings_of(point), Reports(tune.report))
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
    """A trial as the plain values that travel to a worker, which JSON can hold."""
    absolute = runtime.model_copy(update={"results": runtime.results.absolute()})
    return {
        "name": trial.name,
        "run_id": trial.run_id,
        "config": trial.config.model_dump(mode="json"),
        "runtime": absolute.model_dump(mode="json"),
        "storage": storage.uri if storage else None,
        "working_folder": str(Path.cwd()),
        "unmeasured": None,  # or the run whose fastest paths all runs of the grid take
    }


def as_grid(settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What Tune makes trials of. As text: dicts it copies, all of them, for each of its points."""
    return {"trial": tune.grid_search([json.dumps(given) for given in settings])}


def settings_of(point: dict[str, str]) -> dict[str, Any]:
    """What `trial_settings` made of the trial at a point of the grid."""
    settings: dict[str, Any] = json.loads(point["trial"])
    return settings


def own_slot(point: dict[str, str]) -> tune.PlacementGroupFactory:
    """What the trial takes of a machine. Here, as a worker imports what this module imports."""
    return tune.PlacementGroupFactory([settings_of(point)["slot"]])


def train_trial(given: dict[str, Any], reports: "Reports") -> None:
    """Train what `trial_settings` was given in the run's own folder, or go on there."""
    from core.train import train_run  # torch is loaded in workers alone

    os.chdir(given["working_folder"])  # paths of a corpus may be relative to it
    config = parse_config(given["config"], given["name"])
    runtime = Runtime.model_validate_json(json.dumps(given["runtime"]))  # paths came as text
    uri = given["storage"]
    shared = SharedStorage(uri, runtime.results) if uri else None
    storage = shared or NOWHERE_ELSE
    runtime = on_agreed_paths(given, runtime, shared)
    pull_data(config.data, config.tree, runtime, storage)
    folder = Store(runtime.results).run_folder(given["run_id"])
    train_run(config, runtime, folder, reports.add, ORPHAN_WAIT, storage)
    reports.flush()


def on_agreed_paths(
    given: dict[str, Any], runtime: Runtime, storage: SharedStorage | None
) -> Runtime:
    """`runtime` with the paths that all runs of the grid take, found here if none are yet."""
    if not given["unmeasured"]:
        return runtime
    config = parse_config(given["unmeasured"], given["grid"])
    folder = runtime.results / given["grid"]
    paths = agreed_paths(folder, storage, lambda: measure(config, runtime.device))
    return runtime.model_copy(update={"paths": paths})


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
