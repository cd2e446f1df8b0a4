"""What is fastest where the trials run: measured once a sweep, kept with it, the same for all."""

from collections.abc import Callable

from core.config import Paths, RunConfig
from core.paths import PATHS, kept_paths, taken_paths
from sweeps.grid import Grid
from sweeps.store import Store


def sweep_paths(grid: Grid, store: Store, measured: Callable[[], Paths]) -> Paths:
    """Those kept beside the grid's table, or in the storage by a driver elsewhere; at first those
    of its finished runs, or `measured`.

    Runs that another grid or another machine finished are compared with the rest, so these round
    as they did. Raises InputError for a file that holds no paths.
    """
    folder, storage = store.results / grid.name, store.storage
    if storage:
        storage.bring(folder / PATHS)
    found = kept_paths(folder, lambda: _of_finished(grid, store) or measured())
    if storage:
        storage.leave(folder / PATHS)
    return found


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
