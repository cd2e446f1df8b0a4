"""What is fastest where the trials run: measured once a sweep, kept with it, the same for all."""

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from core.config import Paths, RunConfig
from core.paths import PATHS, kept_paths, taken_paths
from sweeps.grid import Grid
from sweeps.storage import SharedStorage
from sweeps.store import Store


def known_paths(grid: Grid, store: Store) -> Paths | None:
    """Those kept beside the grid's table, or in the storage by a driver elsewhere; at first those
    of its finished runs.

    Runs that another grid or another machine finished are compared with the rest, so these round
    as they did. Raises InputError for a file that holds no paths.
    """
    folder = store.results / grid.name
    if store.storage:
        store.storage.bring(folder / PATHS)
    return taken_paths(folder) if (folder / PATHS).exists() else _of_finished(grid, store)


def agreed_paths(
    folder: Path, storage: SharedStorage | None, measured: Callable[[], Paths]
) -> Paths:
    """Those kept in the `folder` of a grid: the first of a machine to ask measures them and leaves
    them there and in the storage, and the others wait.

    Raises InputError for a file that holds no paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{PATHS}.lock"):
        first = not (folder / PATHS).exists()
        kept = kept_paths(folder, measured)
        if storage and first:
            storage.leave(folder / PATHS)
    return kept


def _of_finished(grid: Grid, store: Store) -> Paths | None:
    """Of the first that was free to take any."""
    for trial in grid.trials:
        record = store.finished(grid, trial)
        if record and record.precision and trial.config.train.precision == "auto":
            return taken_paths(store.run_folder(trial.run_id), record)
    return None


def measure(config: RunConfig, device: str) -> Paths:
    """The fastest paths of a run on this machine."""
    from core.calibrate import measure_paths  # torch: seconds

    return measure_paths(config, device)
