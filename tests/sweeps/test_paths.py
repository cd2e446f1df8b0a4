"""Every run of a sweep takes the same paths, and those of the runs that it is compared with."""

from pathlib import Path
from threading import Thread

import pytest

from core.config import Paths
from core.paths import PATHS, kept_paths
from core.planned import planned_record
from core.record import RECORD, RunRecord, Status, write_record
from sweeps.grid import Grid, Trial, load_grid
from sweeps.paths import agreed_paths, known_paths
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
    assert known_paths(grid, store) is None
    folder = store.results / grid.name
    assert agreed_paths(folder, None, lambda: FOUND) == FOUND
    assert agreed_paths(folder, None, never) == FOUND
    finish(store, grid.trials[0], precision="bf16")
    assert known_paths(grid, store) == FOUND


def test_trials_that_start_at_once_wait_for_the_first(tmp_path: Path) -> None:
    others: list[Paths] = []

    def ask() -> None:
        others.append(agreed_paths(tmp_path, None, never))

    def measured() -> Paths:
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        assert not others
        return FOUND

    waiting = Thread(target=ask)
    assert agreed_paths(tmp_path, None, measured) == FOUND
    waiting.join()
    assert others == [FOUND]


def test_a_driver_elsewhere_takes_those_in_the_storage(grid: Grid, tmp_path: Path) -> None:
    results = [tmp_path / name for name in ("one", "two")]
    stores = [Store(r, SharedStorage(str(tmp_path / "store"), r)) for r in results]
    assert agreed_paths(results[0] / grid.name, stores[0].storage, lambda: FOUND) == FOUND
    assert known_paths(grid, stores[1]) == FOUND
    assert (results[1] / grid.name / PATHS).exists()


def test_those_of_a_run_that_another_grid_finished(grid: Grid, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    finish(store, grid.trials[1], precision="fp32")
    kept_paths(store.run_folder(grid.trials[1].run_id), lambda: FOUND)
    assert known_paths(grid, store) == FOUND


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_those_of_a_run_that_kept_its_precision_alone(
    grid: Grid, tmp_path: Path, precision: str
) -> None:
    store = Store(tmp_path / "results")
    finish(store, grid.trials[1], precision=precision)
    found = known_paths(grid, store)
    assert found
    assert (found.precision, found.attention) == (precision, "plain")


def test_a_run_that_says_how_it_rounds_binds_no_other(tiny: Path, tmp_path: Path) -> None:
    tiny.write_text(tiny.read_text().replace("batch_size: 4", "batch_size: 4, precision: bf16"))
    grid, store = load_grid(str(tiny)), Store(tmp_path / "results")
    finish(store, grid.trials[0], precision="bf16")
    assert known_paths(grid, store) is None


def test_a_run_that_failed_binds_none(grid: Grid, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.write_failure(grid.trials[0], "out of memory")
    assert known_paths(grid, store) is None
