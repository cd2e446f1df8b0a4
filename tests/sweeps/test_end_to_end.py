"""A real sweep: text to table with Ray and MLflow, killed, run again, and widened."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from analysis.runs import load_runs
from analysis.tune import tune
from core.config import Runtime
from core.paths import taken_paths
from core.record import INCIDENTAL, read_record, read_runs, to_frame
from core.train import train_run
from sweeps.grid import load_grid
from sweeps.store import Store


def command(grid: Path, results: Path) -> list[str]:
    options = ["--results", str(results), "--checkpoint-seconds", "0.5"]
    return [sys.executable, "-m", "sweeps", "run", str(grid), *options]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Drivers that a test starts; none outlives it."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for driver in started:
        if driver.poll() is None:
            driver.send_signal(signal.SIGINT)
            driver.wait(60)


def begin(grid: Path, results: Path) -> subprocess.Popen[str]:
    # Its own process group, as a shell gives it.
    return subprocess.Popen(
        command(grid, results),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_record(results: Path, driver: subprocess.Popen[str]) -> Path:
    while not (found := list(results.glob("runs/*/record.json"))):
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(0.05)
    return found[0]


def run(grid: Path, results: Path) -> str:
    done = subprocess.run(command(grid, results), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked(results: Path) -> tuple[list[tuple[str, str]], int]:
    """(run id, status) of every MLflow run, and how many points it holds twice."""
    with sqlite3.connect(results / "mlflow.db") as database:
        query = "select value, status from runs join tags using (run_uuid) where key = 'run_id'"
        twice = "select count(*) - count(distinct run_uuid || key || step) from metrics"
        points = database.execute(twice).fetchone()[0]
        return sorted(database.execute(query).fetchall()), points


def test_killed_then_run_again_then_widened(
    tiny: Path, tmp_path: Path, start: list[subprocess.Popen[str]]
) -> None:
    results = tmp_path / "results"
    tiny.write_text(tiny.read_text().replace("20_000", "60_000"))  # the kill finds some at work
    start.append(begin(tiny, results))
    first = wait_for_record(results, start[0])
    os.kill(start[0].pid, signal.SIGKILL)
    start[0].wait()
    kept = first.read_bytes()

    assert "4 done" in run(tiny, results)
    assert first.read_bytes() == kept
    table = read_runs(results / "tiny" / "runs.csv")
    grid = load_grid(str(tiny))
    assert list(table["run_id"]) == [trial.run_id for trial in grid.trials]
    assert set(table["status"]) == {"done"}
    assert (table["loss_test_prefix"] < table["loss_train"].max() * 2).all()
    assert tracked(results) == (sorted((t.run_id, "FINISHED") for t in grid.trials), 0)

    before = {path: path.read_bytes() for path in results.glob("runs/*/record.json")}
    assert "nothing to do: 4 done" in run(tiny, results)
    tiny.write_text(tiny.read_text().replace("[1e-2]", "[1e-2, 3e-2]"))
    assert "6 done" in run(tiny, results)
    assert {path: path.read_bytes() for path in before} == before
    assert len(read_runs(results / "tiny" / "runs.csv")) == 6
    assert len(tracked(results)[0]) == 6


RATES = """\
  dense:
    {early}axes: {{train.lr: {rates}}}
"""


def rates_grid(tiny: Path, name: str, rates: list[float], early: str) -> Path:
    base = tiny.read_text().split("  dense:")[0].replace("20_000", "300_000")
    path = tiny.with_name(name)
    path.write_text(base + RATES.format(early=early, rates=rates))
    return path


def test_a_poor_rate_is_stopped_and_trained_in_full_where_it_is_wanted(
    tiny: Path, tmp_path: Path
) -> None:
    results, early = tmp_path / "results", "early_stopping: true\n    "
    run(rates_grid(tiny, "rates.yaml", [1e-2], ""), results)
    rates = rates_grid(tiny, "rates.yaml", [1e-9, 1e-2], early)
    printed = run(rates, results)  # it meets a better curve, whatever the timing
    assert "1 stopped" in printed
    stopped = load_grid(str(rates)).trials[0]
    folder = results / "runs" / stopped.run_id
    assert not (folder / "record.json").exists()
    table = read_runs(results / "rates" / "runs.csv")
    assert table["status"].tolist()[0] == "stopped"
    assert "at the rung of step" in table["cause"][0]
    assert 0.2 * 300_000 < table["tokens"][0] < table["tokens"][1]
    assert tune(load_runs(results, "rates").tried)["lr"].tolist() == [1e-2]
    assert tracked(results) == (sorted((run_id, "FINISHED") for run_id in table["run_id"]), 0)
    assert "nothing to do: 1 done, 1 stopped" in run(rates, results)

    plain = rates_grid(tiny, "plain.yaml", [1e-9], "")
    assert "1 done" in run(plain, results)
    whole = tmp_path / "whole"
    runtime = Runtime(results=results, paths=taken_paths(folder))
    train_run(stopped.config, runtime, whole, lambda point: None)
    for name in ("model.safetensors", "curve.csv"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    records = [to_frame([read_record(path / "record.json")]) for path in (folder, whole)]
    pd.testing.assert_frame_equal(*(r.drop(columns=list(INCIDENTAL)) for r in records))
    assert run(rates, results).startswith("nothing to do: 2 done")


def test_interrupted_it_says_how_to_go_on(
    tiny: Path, tmp_path: Path, start: list[subprocess.Popen[str]]
) -> None:
    results = tmp_path / "results"
    tiny.write_text(tiny.read_text().replace("20_000", "20_000_000"))
    start.append(begin(tiny, results))
    while not list(results.glob("runs/*/config.yaml")):
        assert start[0].poll() is None
        time.sleep(0.05)
    os.killpg(start[0].pid, signal.SIGINT)
    printed = start[0].communicate()[0]
    assert "interrupted; 0 of 4 done; run the same command to go on" in printed
    assert start[0].returncode == 130
    assert Store(results).pending(load_grid(str(tiny)))
    assert {status for _, status in tracked(results)[0]} == {"KILLED"}
    workers = subprocess.run(["ps", "-eo", "sid,stat"], capture_output=True, text=True).stdout
    alive = [line.split() for line in workers.splitlines()]
    assert not [
        state for session, state in alive if session == str(start[0].pid) and state[0] != "Z"
    ]
