"""Runs compete within their group alone, and what is decided outlives the sweep."""

import json
import random
import shutil
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from sweeps.grid import Grid, load_grid
from sweeps.scheduling import EarlyStopping
from sweeps.status import describe_status
from sweeps.store import Store
from tests.sweeps.conftest import TINY
from tests.sweeps.test_store import finish, record_of

RATES = "axes: {train.lr: [1, 2, 3, 4]}"
STEPS = 156  # of a run of TINY
Report = tuple[str, list[dict[str, float]]]  # run id, points of its curve


@pytest.fixture
def write(corpus: Path, write_grid: Callable[..., Path]) -> Callable[..., Grid]:
    """A grid on TINY's base whose arms are given as YAML."""

    def grid(name: str = "rates", seeds: int = 1, **arms: str) -> Grid:
        base = TINY.replace("CORPUS", str(corpus)).split("arms:")[0]
        lines = "".join(f"  {arm}: {{{spec}}}\n" for arm, spec in arms.items())
        return load_grid(str(write_grid(f"{base}arms:\n{lines}seeds: {seeds}\n", f"{name}.yaml")))

    return grid


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def reports_of(run_ids: Sequence[str], draw: random.Random) -> list[Report]:
    """Random curves, in random order of arrival and in reports of random length."""
    waiting = {
        run_id: [
            {"step": step, "tokens": 128 * step, "loss": draw.uniform(1, 9), "lr": 0.1}
            for step in range(1, STEPS + 1)
        ]
        for run_id in run_ids
    }
    reports = []
    while waiting:
        run_id = draw.choice(list(waiting))
        length = draw.randint(1, 30)
        reports.append((run_id, waiting[run_id][:length]))
        waiting[run_id] = waiting[run_id][length:]
        if not waiting[run_id]:
            del waiting[run_id]
    return reports


def reference(grid: Grid, reports: Sequence[Report]) -> set[str]:
    """By hand: at a quarter and at half of its steps a run is stopped that is worse than the median
    of those of its group that were there before.
    """
    group = {t.run_id: (t.arm, t.config.anchor.d_model, t.config.seed) for t in grid.trials}
    seen: dict[Any, list[float]] = defaultdict(list)
    stopped: set[str] = set()
    for run_id, points in reports:
        for point in points if run_id not in stopped else ():
            if point["step"] in (STEPS // 4, STEPS // 2):
                before = seen[group[run_id], point["step"]]
                if before and point["loss"] > statistics.median(before):
                    stopped.add(run_id)
                before.append(point["loss"])
    return stopped


def decide(scheduler: EarlyStopping, reports: Sequence[Report]) -> set[str]:
    """What the scheduler makes of the same reports; a stopped run reports no more."""
    for run_id, points in reports:
        if run_id not in scheduler.stopped:
            trial = SimpleNamespace(config={"trial": json.dumps({"run_id": run_id})})
            said = scheduler.on_trial_result(None, trial, {"points": points})
            assert (said == "STOP") == (run_id in scheduler.stopped)
    return set(scheduler.stopped)


@pytest.mark.parametrize("seed", range(5))
def test_each_group_is_halved_by_itself(
    write: Callable[..., Grid], store: Store, seed: int
) -> None:
    asked = "early_stopping: always, axes: {anchor: [d16, d32], train.lr: [1, 2, 3, 4]}"
    grid = write(seeds=2, one=asked, two=f"{asked}, train: {{clip: 2}}", plain=RATES)
    reports = reports_of([trial.run_id for trial in grid.trials], random.Random(seed))
    stopped = decide(EarlyStopping(grid, store, grid.trials), reports)
    of_plain = {trial.run_id for trial in grid.trials if trial.arm == "plain"}
    assert stopped == reference(grid, reports) - of_plain
    assert 8 <= len(stopped) <= 24  # a group of four keeps one at least


@pytest.mark.parametrize("seed", range(3))
def test_a_sweep_that_starts_again_knows_what_was(
    write: Callable[..., Grid], store: Store, seed: int
) -> None:
    grid, draw = write(dense=f"early_stopping: true, {RATES}"), random.Random(seed)
    ids = [trial.run_id for trial in grid.trials]
    before, after = reports_of(ids[:2], draw), reports_of(ids[2:], draw)
    stopped = decide(EarlyStopping(grid, store, grid.trials), before)
    for trial in grid.trials[:2]:
        if trial.run_id not in stopped:
            finish(store, trial)
            curve = [
                point for run_id, points in before if run_id == trial.run_id for point in points
            ]
            pd.DataFrame(curve).to_csv(store.run_folder(trial.run_id) / "curve.csv", index=False)
    again = Store(store.results)
    stopped |= decide(EarlyStopping(grid, again, again.pending(grid)), after)
    assert stopped == reference(grid, [*before, *after])


def test_what_an_interrupted_run_has_shown_is_judged_when_it_goes_on(
    write: Callable[..., Grid], store: Store
) -> None:
    grid = write(dense=f"early_stopping: true, {RATES}")
    good, poor = grid.trials[:2]
    for trial, loss in ((good, 2.0), (poor, 3.0)):
        finish(store, trial)
        kept = pd.DataFrame({"step": [50], "tokens": 6400, "loss": loss, "lr": 0.1})
        kept.to_csv(store.run_folder(trial.run_id) / "curve.csv", index=False)
    (store.run_folder(poor.run_id) / "record.json").unlink()
    scheduler = EarlyStopping(grid, store, store.pending(grid))
    assert decide(scheduler, [(poor.run_id, [{"step": 51, "tokens": 6528, "loss": 3.0}])])
    assert "at the rung of step 50 of 156" in scheduler.stopped[poor.run_id].cause


def test_a_run_of_two_arms_goes_on(write: Callable[..., Grid], store: Store) -> None:
    grid = write(dense=f"early_stopping: true, {RATES}", plain=RATES)
    reports = reports_of([trial.run_id for trial in store.pending(grid)], random.Random(0))
    assert reference(grid, reports)
    assert not decide(EarlyStopping(grid, store, store.pending(grid)), reports)


def test_a_stop_counts_for_the_grid_that_made_it(write: Callable[..., Grid], store: Store) -> None:
    grid = write(dense=f"early_stopping: true, {RATES}")
    same, plain = write("same", dense=f"early_stopping: true, {RATES}"), write("plain", dense=RATES)
    trial, curve = grid.trials[3], [{"step": 39, "tokens": 4992, "loss": 7.5, "lr": 4.0}]
    store.write_stop(grid, trial, "training loss 7.5", curve)
    assert store.pending(grid) == list(grid.trials[:3])
    assert len(store.pending(same)) == len(store.pending(plain)) == 4
    assert describe_status(grid, store)["counts"]["stopped"] == 1
    assert describe_status(grid, store)["runs"][3]["cause"] == "training loss 7.5"
    assert describe_status(plain, store)["counts"]["to do"] == 4
    row = store.collect(grid).iloc[0]
    assert (row["status"], row["lr"], row["tokens"], row["token_budget"]) == (
        "stopped",
        4.0,
        4992,
        20_000,
    )

    shutil.rmtree(store.results / "runs")  # a table that was committed
    elsewhere = Store(store.results)
    assert elsewhere.pending(grid) == list(grid.trials[:3])
    assert len(elsewhere.pending(same)) == len(elsewhere.pending(plain)) == 4
    finish(elsewhere, trial)
    assert [r["state"] for r in describe_status(grid, elsewhere)["runs"]][3] == "done"


def test_a_stop_and_the_run_in_full_are_each_delivered(
    write: Callable[..., Grid], store: Store
) -> None:
    grid = write(dense=f"early_stopping: true, {RATES}")
    trial = grid.trials[0]
    stop = store.write_stop(grid, trial, "slow", [{"step": 39, "tokens": 1, "loss": 7, "lr": 1}])
    (store.results / "mlflow.db").touch()
    assert store.undelivered(grid) == [trial]
    store.mark_delivered(stop)
    assert store.undelivered(grid) == []
    finish(store, trial)
    assert store.undelivered(grid) == [trial]
    store.mark_delivered(record_of(trial))
    assert store.undelivered(grid) == []
