"""Ray Tune runs the trials; our store says what is done.

One driver a results folder. It prepares the data, then starts Ray and opens the tracking store.
Killed at any moment it loses nothing: runs write their own records, and go on from their own
checkpoints. `Tuner.restore` would drop the new points of a widened grid, so it is not used.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import ray
from ray import tune

from core.config import Paths, Runtime
from core.errors import InputError
from core.prepare import prepare
from core.storage import NOWHERE_ELSE
from sweeps.background import Background
from sweeps.grid import Grid, Trial
from sweeps.interruption import Interruption, interruptible
from sweeps.needs import reserved
from sweeps.pace import work
from sweeps.paths import measure, sweep_paths
from sweeps.progress import Watcher, open_progress
from sweeps.ray_session import ray_session
from sweeps.relay import RETRIES, Relay
from sweeps.scheduling import EarlyStopping, tune_run_id
from sweeps.store import Store
from sweeps.trial import own_slot, pull_data, run_trial, trial_settings


@dataclass(frozen=True)
class Options:
    """Where and how the trials run; no result depends on it."""

    device: str | None  # none: the GPU where there is one
    gpu_share: float  # of a GPU, for one process
    runtime: Runtime  # with that device once Ray has said what there is
    until: float | None = None  # Unix time at which the sweep is interrupted


def launch(grid: Grid, store: Store, options: Options) -> None:
    """Run what is pending of a grid to its end and write its table.

    Raises InputError where the data cannot be prepared, Interrupted when interrupted.
    """
    with interruptible(options.until) as interruption:
        try:
            _deliver_and_run(grid, store, interruption, options)
        finally:
            store.collect(grid)


def _deliver_and_run(
    grid: Grid, store: Store, interruption: Interruption, options: Options
) -> None:
    pending = sorted(store.pending(grid), key=lambda trial: work(trial.config), reverse=True)
    _prepare_data(grid, pending, store)
    with _watching(grid, pending, store) as watchers:
        if not pending:
            return
        with _scratch() as scratch, _loading_ahead(), ray_session(interruption):
            scheduler = EarlyStopping(grid, store, pending)
            relay = Relay(pending, store, watchers, interruption, scheduler.stopped)
            runtime, share = _resources(options)
            paths = sweep_paths(grid, store, lambda: _fastest(pending, runtime, share))
            runtime = runtime.model_copy(update={"paths": paths})
            _run(pending, relay, scheduler, scratch, runtime, share)


def _open_tracker(grid: Grid, store: Store) -> Watcher:
    from sweeps.tracking import Tracker  # MLflow: a second

    tracker = Tracker(grid, store)
    tracker.deliver(store.undelivered(grid))
    return tracker


@contextmanager
def _watching(grid: Grid, pending: Sequence[Trial], store: Store) -> Iterator[list[Watcher]]:
    """MLflow takes seconds to come up: only an address, which may be wrong, is tried at once."""
    if "MLFLOW_TRACKING_URI" in os.environ:
        from sweeps.mlflow_client import connect

        connect(store.results)
    tracker = Background(lambda: _open_tracker(grid, store))
    total = len({trial.run_id for trial in grid.trials})
    watchers = [open_progress(pending, total), tracker]
    try:
        yield watchers
    finally:
        for watcher in watchers:
            watcher.close()


def _prepare_data(grid: Grid, pending: Sequence[Trial], store: Store) -> None:
    """Each corpus and tree once, before any trial: workers then map what lies in the cache."""
    runtime, storage = Runtime(results=store.results), store.storage or NOWHERE_ELSE
    try:
        for data, tree in dict.fromkeys((t.config.data, t.config.tree) for t in pending):
            folder = pull_data(data, tree, runtime, storage)
            prepare(data, tree, runtime.cache, runtime.device)
            storage.push(folder)
    except InputError as error:
        raise InputError(f"{grid.path}: data.corpus: {error}") from None


def _resources(options: Options) -> tuple[Runtime, dict[str, float]]:
    """Where trials run, and what each process takes besides memory: a core, a share of a GPU."""
    gpus = ray.cluster_resources().get("GPU", 0)
    device = options.device or ("cuda" if gpus else "cpu")
    if device.startswith("cuda") and not gpus:
        raise InputError(f"device {device}: Ray sees no GPU here; use DEVICE=cpu")
    share = {"GPU": options.gpu_share} if device.startswith("cuda") else {}
    return options.runtime.model_copy(update={"device": device}), {"CPU": 1.0, **share}


@contextmanager
def _loading_ahead() -> Iterator[None]:
    """What `_fastest` will import, while Ray's own processes start."""
    with ThreadPoolExecutor(1) as beside:
        if "RAY_ADDRESS" not in os.environ:
            beside.submit(import_module, "core.calibrate")
            beside.submit(import_module, "torch._dynamo")  # by the first optimizer: a second
        yield


def _fastest(pending: Sequence[Trial], runtime: Runtime, share: dict[str, float]) -> Paths:
    """For every run of the grid, from the one of median work: here, or on the node of a cluster or
    the GPU that Ray takes.
    """
    middle = pending[len(pending) // 2].config
    if runtime.device == "cpu" and "RAY_ADDRESS" not in os.environ:
        return measure(middle, runtime.device)  # a worker would load torch first: seconds
    slot = ray.remote(measure).options(num_cpus=share["CPU"], num_gpus=share.get("GPU", 0))
    found: Paths = ray.get(slot.remote(middle, runtime.device))
    return found


def _settings(
    pending: Sequence[Trial], store: Store, runtime: Runtime, share: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """What travels to the workers; a run larger than what Ray may give has a machine alone."""
    largest = max(node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"])
    for trial in pending:
        slot = share | {"memory": reserved(trial.config, int(largest), runtime.bank)}
        yield trial_settings(trial, runtime, store.storage) | {"slot": slot}


def _trainable(processes: int, settings: Sequence[dict[str, Any]]) -> tuple[Any, int | None]:
    """What Tune calls, and for how many trials at once; none: as many as their slots allow."""
    if processes == 1:
        return tune.with_resources(run_trial, own_slot), None
    from sweeps.together import OWN_SLOT, room, run_together  # torch: seconds

    waits = tune.PlacementGroupFactory([OWN_SLOT])
    at_once = room(processes, [given["slot"] for given in settings])
    return tune.with_resources(run_together, waits), at_once


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """For what Ray keeps of an experiment: of no use to us, records and checkpoints are ours."""
    return tempfile.TemporaryDirectory(prefix="memscale-", ignore_cleanup_errors=True)


def _run(
    pending: Sequence[Trial],
    relay: "Relay",
    scheduler: EarlyStopping,
    scratch: str,
    runtime: Runtime,
    share: dict[str, float],
) -> None:
    settings = list(_settings(pending, relay.store, runtime, share))
    trainable, at_once = _trainable(runtime.processes, settings)
    tune.Tuner(
        trainable,
        param_space={"trial": tune.grid_search(settings)},
        tune_config=tune.TuneConfig(
            scheduler=scheduler,
            max_concurrent_trials=at_once,
            reuse_actors=True,
            trial_name_creator=tune_run_id,
            trial_dirname_creator=tune_run_id,
        ),
        run_config=tune.RunConfig(
            storage_path=scratch,
            callbacks=[relay],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    ).fit()
