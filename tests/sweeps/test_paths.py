"""Every run of a sweep takes the same paths, and those of the runs that it is compared with."""

from pathlib import Path

import pytest

from core.config import Paths
from core.paths import PATHS, kept_paths
from core.planned import planned_record
from core.record import RECORD, RunRecord, Status, write_record
from sweeps.grid import Grid, Trial, load_grid
from sweeps.paths import sweep_paths
from sweeps.storage import SharedStorage
from sweeps.store import Store

FOUND = Paths(precision="fp32", attention="fused")


@pytest.fixture
def grid(tiny: Path) -> Grid:
    return load_grid(str(tiny))


def never() -> Paths:
    pytest.fail("measured")


def finish(store: Store, trial: Trial, **columns: str) -> RunRecord:
    given = {"run_id": trial.run_id, "status": Status.DONE, **columns}
    record = RunRecord(**{**planned_record(trial.config).__dict__, **given})
    write_record(record, store.run_folder(trial.run_id) / RECORD)
    return record


def test_measured_once_a_sweep(grid: Grid, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    assert sweep_paths(grid, store, lambda: FOUND) == FOUND
    assert (store.results / grid.name / PATHS).exists()
    finish(store, grid.trials[0], precision="bf16")
    assert sweep_paths(grid, store, never) == FOUND


def test_a_driver_elsewhere_takes_those_in_the_storage(grid: Grid, tmp_path: Path) -> None:
    results = [tmp_path / name for name in ("one", "two")]
    stores = [Store(r, SharedStorage(str(tmp_path / "store"), r)) for r in results]
    assert sweep_paths(grid, stores[0], lambda: FOUND) == FOUND
    assert sweep_paths(grid, stores[1], never) == FOUND
    assert (results[1] / grid.name / PATHS).exists()


def test_those_of_a_run_that_another_grid_finished(grid: Grid, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    finish(store, grid.trials[1], precision="fp32")
    kept_paths(store.run_folder(grid.trials[1].run_id), lambda: FOUND)
    assert sweep_paths(grid, store, never) == FOUND


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_those_of_a_run_that_kept_its_precision_alone(
    grid: Grid, tmp_path: Path, precision: str
) -> None:
    store = Store(tmp_path / "results")
    finish(store, grid.trials[1], precision=precision)
    found = sweep_paths(grid, store, never)
    assert (found.precision, found.attention) == (precision, "plain")


def test_a_run_that_says_how_it_rounds_binds_no_other(tiny: Path, tmp_path: Path) -> None:
    tiny.write_text(tiny.read_text().replace("batch_size: 4", "batch_size: 4, precision: bf16"))
    grid, store = load_grid(str(tiny)), Store(tmp_path / "results")
    finish(store, grid.trials[0], precision="bf16")
    assert sweep_paths(grid, store, lambda: FOUND) == FOUND


def test_a_run_that_failed_binds_none(grid: Grid, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.write_failure(grid.trials[0], "out of memory")
    assert sweep_paths(grid, store, lambda: FOUND) == FOUND
