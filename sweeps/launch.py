"""The driver of a sweep, one a results folder: data, then Ray and the tracking store, then trials.

Killed at any moment it loses nothing: runs write their own records, and go on from their own
checkpoints. What takes seconds to import is imported while something else is waited for.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

import ray

from core.config import Paths, RunConfig, Runtime
from core.dataset import is_prepared
from core.errors import InputError
from core.storage import NOWHERE_ELSE
from sweeps.background import Background
from sweeps.grid import Grid, Trial
from sweeps.interruption import Interruption, interruptible
from sweeps.pace import work
from sweeps.paths import agreed_paths, known_paths, measure
from sweeps.progress import Watcher, open_progress
from sweeps.ray_session import Slots, ray_session
from sweeps.storage import pull_data
from sweeps.store import Store


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
        with _loading_ahead(), ray_session(interruption) as scratch:
            slots = _slots(grid, pending, store, options, scratch)
            from sweeps.tuning import tune_trials  # Ray Tune: a second

            tune_trials(grid, pending, store, slots, watchers, interruption)


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
            if not is_prepared(folder):
                from core.prepare import prepare  # torch and numba: seconds

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


def _slots(
    grid: Grid, pending: Sequence[Trial], store: Store, options: Options, scratch: str
) -> Slots:
    """With the paths that all runs take or, on this machine alone, the run that its first trial is
    to measure: torch, which takes seconds to load, is loaded there anyway.
    """
    runtime, share = _resources(options)
    known, middle = known_paths(grid, store), pending[len(pending) // 2].config
    if not known and "RAY_ADDRESS" not in os.environ and runtime.processes == 1:
        return Slots(runtime, share, scratch, unmeasured=middle)
    paths = agreed_paths(
        store.results / grid.name,
        store.storage,
        lambda: known or _fastest(middle, runtime.device, share),
    )
    return Slots(runtime.model_copy(update={"paths": paths}), share, scratch)


def _fastest(config: RunConfig, device: str, share: dict[str, float]) -> Paths:
    """On the node of a cluster that Ray takes."""
    slot = ray.remote(measure).options(num_cpus=share["CPU"], num_gpus=share.get("GPU", 0))
    found: Paths = ray.get(slot.remote(config, device))
    return found


@contextmanager
def _loading_ahead() -> Iterator[None]:
    """What comes after, while Ray's own processes start."""
    with ThreadPoolExecutor(1) as beside:
        for module in ("sweeps.tuning", "mlflow"):  # Tune asks whether a callback is MLflow's
            beside.submit(import_module, module)
        yield
