"""Records say what is done; a grid's table is collected from them and never loses one."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from core.errors import InputError
from core.record import RunRecord, Status, read_runs, to_frame, write_runs
from sweeps.__main__ import main
from sweeps.grid import Grid, Trial, load_grid
from sweeps.store import Store


def record_of(trial: Trial, **changes: object) -> RunRecord:
    values = {
        "run_id": trial.run_id,
        "seed": trial.config.seed,
        "memory_type": trial.config.memory.type,
        "loss_test_prefix": 3.25,
        "host": "here",
        "finished": "2026-11-21T12:00:00+00:00",
    }
    return RunRecord(**(values | changes))  # type: ignore[arg-type]


def finish(store: Store, trial: Trial, **changes: object) -> None:
    """What a run leaves in its folder."""
    folder = store.run_folder(trial.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    curve = pd.DataFrame({"step": [1, 2], "tokens": [8, 16], "loss": [5.0, 4.0], "lr": [0.1, 0.1]})
    curve.to_csv(folder / "curve.csv", index=False)
    record = record_of(trial, **changes)
    (folder / "record.json").write_text(json.dumps(record.__dict__))


@pytest.fixture
def grid(tiny: Path) -> Grid:
    return load_grid(str(tiny))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def test_without_records_all_is_pending(grid: Grid, store: Store) -> None:
    assert store.pending(grid) == list(grid.trials)
    assert store.collect(grid).empty
    assert not store.results.exists()


def test_done_and_diverged_are_finished_and_failed_is_not(grid: Grid, store: Store) -> None:
    finish(store, grid.trials[0])
    finish(store, grid.trials[1], status=Status.DIVERGED, cause="loss nan")
    store.write_failure(grid.trials[2], "OSError: disk full")
    assert store.pending(grid) == list(grid.trials[2:])
    table = store.collect(grid)
    assert list(table["status"]) == ["done", "diverged", "failed"]
    assert list(table["cause"]) == ["", "loss nan", "OSError: disk full"]
    assert list(table["arm"]) == ["dense", "dense", "ffn"]
    assert set(table["grid"]) == {"tiny"}


def test_a_record_wins_over_the_failure_before(grid: Grid, store: Store) -> None:
    store.write_failure(grid.trials[0], "OSError: disk full")
    finish(store, grid.trials[0])
    assert list(store.collect(grid)["cause"]) == [""]
    assert grid.trials[0] not in store.pending(grid)


def test_a_cause_that_cannot_be_kept_is_still_given(grid: Grid, store: Store) -> None:
    store.results.parent.mkdir(exist_ok=True)
    store.results.write_text("a file where the folder should be")
    assert store.write_failure(grid.trials[0], "OSError: disk full").cause == "OSError: disk full"


def test_the_written_table_holds_every_column_with_its_unit(grid: Grid, store: Store) -> None:
    finish(store, grid.trials[0])
    table = store.collect(grid)
    folder = store.results / "tiny"
    pd.testing.assert_frame_equal(read_runs(folder / "runs.csv"), table, check_dtype=False)
    assert list(pd.read_csv(folder / "columns.csv")["column"]) == list(table.columns)
    curves = pd.read_csv(folder / "curves.csv")
    assert list(curves["run_id"]) == [grid.trials[0].run_id] * 2
    assert list(curves["loss"]) == [5.0, 4.0]
    assert (folder / "grid.yaml").read_text() == grid.path.read_text()


def test_a_record_in_any_table_counts_under_this_grids_names(grid: Grid, store: Store) -> None:
    record = record_of(grid.trials[2], grid="other", arm="memory")
    folder = store.results / "reference" / "other"
    write_runs(to_frame([record]), folder / "runs.csv")
    curve = pd.DataFrame({"run_id": [record.run_id], "step": 1, "tokens": 8, "loss": 5.0, "lr": 1})
    curve.to_csv(folder / "curves.csv", index=False)
    assert grid.trials[2] not in store.pending(grid)
    table = store.collect(grid)
    assert list(table["run_id"]) == [record.run_id]
    assert (table["grid"][0], table["arm"][0]) == ("tiny", "ffn")
    assert len(pd.read_csv(store.results / "tiny" / "curves.csv")) == 1


def test_failed_rows_of_a_table_are_tried_again(grid: Grid, store: Store) -> None:
    record = record_of(grid.trials[0], status=Status.FAILED)
    write_runs(to_frame([record]), store.results / "other" / "runs.csv")
    assert store.pending(grid) == list(grid.trials)


def test_narrowing_a_grid_keeps_what_only_its_table_held(tiny: Path, store: Store) -> None:
    grid, narrow = load_grid(str(tiny)), load_grid(str(tiny), seeds=1)
    write_runs(to_frame(map(record_of, grid.trials)), store.results / "tiny" / "runs.csv")
    assert len(store.collect(narrow)) == len(narrow.trials)
    assert Store(store.results).pending(grid) == []


def test_an_unchanged_table_is_left_alone(grid: Grid, store: Store) -> None:
    finish(store, grid.trials[0])
    store.collect(grid)
    path = store.results / "tiny" / "runs.csv"
    path.write_text(path.read_text() + "\n")  # a blank line is no row
    before = path.read_text()
    store.collect(grid)
    assert path.read_text() == before
    finish(store, grid.trials[1])
    store.collect(grid)
    assert path.read_text() != before


def test_one_run_may_serve_two_arms(tiny: Path, write_grid: Callable[..., Path]) -> None:
    text = tiny.read_text().replace("  dense: {}\n", "  dense: {}\n  control: {}\n")
    grid = load_grid(str(write_grid(text, "twice.yaml")))
    store = Store(tiny.parent / "results")
    assert len(store.pending(grid)) == len(grid.trials) - 2
    finish(store, grid.trials[0])
    assert list(store.collect(grid)["arm"]) == ["dense", "control"]


def test_a_table_that_is_none_is_named(grid: Grid, store: Store) -> None:
    path = store.results / "other" / "runs.csv"
    path.parent.mkdir(parents=True)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"other/runs\.csv"):
        store.pending(grid)


def test_two_drivers_in_one_folder_are_refused(
    tiny: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with store.only_driver():
        assert main(["run", str(tiny), "--results", str(store.results)]) == 2
    assert "another sweep runs in" in capsys.readouterr().err
    with store.only_driver():  # free again
        pass


def test_results_that_cannot_be_written_are_refused(
    tiny: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.results.touch()
    assert main(["run", str(tiny), "--results", str(store.results)]) == 2
    assert "cannot be written" in capsys.readouterr().err
