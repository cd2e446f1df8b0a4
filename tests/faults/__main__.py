"""python -m tests.faults FOLDER: a sweep under a seeded schedule of faults, on a small disk.

Needs Linux. Prints each fault as it strikes and how many of which kind were survived.
"""

import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd

from core.paths import PATHS
from core.record import COLUMNS, INCIDENTAL, read_runs
from sweeps.grid import load_grid
from tests.faults.kinds import KINDS, fill_disk
from tests.faults.sweep import Sweep
from tests.sweeps.conftest import TINY, write_corpus

SEED = 0
TOKENS = "150_000"  # some seconds a run
DISK = "200m"


def main(folder: Path) -> None:
    """Raises AssertionError where a fault did harm."""
    draw, small = random.Random(SEED), _mount(folder / "disk")
    schedule = [kind for kind, times in KINDS.items() for _ in range(times)]
    if not small:
        print("no private mount here: the disk is not filled", flush=True)
        schedule = [kind for kind in schedule if kind is not fill_disk]
    draw.shuffle(schedule)
    harmed = Sweep(_write_grid(folder), folder / "disk" / "harmed", seeds=3)
    try:
        survived = _harm(harmed, schedule, draw)
    finally:
        left = harmed.stop()
    assert not left, left
    whole = Sweep(harmed.grid, folder / "whole", harmed.seeds)
    shutil.copytree(harmed.results / "cache", whole.results / "cache")
    (whole.results / "tiny").mkdir()
    shutil.copy(harmed.results / "tiny" / PATHS, whole.results / "tiny")  # else measured anew
    whole.run()
    _compare(harmed, whole)
    print(f"survived {sum(survived.values())} faults: {_listed(survived)}")
    print(f"{len(_runs(whole))} runs, each done once and equal to the bit to an undisturbed sweep")


def _mount(disk: Path) -> bool:
    """A small disk of our own where the system lets us; `unshare` has made the mounts private."""
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(disk)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _write_grid(folder: Path) -> Path:
    corpus, grid = write_corpus(folder / "text.jsonl"), folder / "tiny.yaml"
    grid.write_text(TINY.replace("CORPUS", str(corpus)).replace("20_000", TOKENS))
    return grid


def _harm(sweep: Sweep, schedule: list, draw: random.Random) -> Counter[str]:  # type: ignore[type-arg]
    """Let every fault strike, then let the sweep come to its end."""
    survived, records, began = Counter[str](), dict[Path, bytes](), time.monotonic()
    for number, kind in enumerate(schedule, 1):
        sweep.reach_training()
        time.sleep(draw.uniform(0, 3))
        if sweep.driver and sweep.driver.poll() is None:
            kind(sweep, draw)
            survived[kind.__name__] += 1
        done = _check_records(sweep, records)
        seconds = time.monotonic() - began
        print(
            f"{seconds:4.0f} s  {number}/{len(schedule)}  {kind.__name__}  {done} done", flush=True
        )
    sweep.run()
    _check_records(sweep, records)
    return survived


def _check_records(sweep: Sweep, seen: dict[Path, bytes]) -> int:
    """A record never changes and never goes."""
    assert all(path.read_bytes() == content for path, content in seen.items())
    seen |= {path: path.read_bytes() for path in sweep.results.glob("runs/*/record.json")}
    return len(seen)


def _compare(harmed: Sweep, whole: Sweep) -> None:
    exact = [name for name in COLUMNS if name not in INCIDENTAL]
    pd.testing.assert_frame_equal(_runs(harmed)[exact], _runs(whole)[exact], check_exact=True)
    for trial in load_grid(str(harmed.grid), harmed.seeds).trials:
        for name in ("model.safetensors", "curve.csv"):
            files = [s.results / "runs" / trial.run_id / name for s in (harmed, whole)]
            assert files[0].read_bytes() == files[1].read_bytes(), files
    assert _tracked(harmed.results) == _tracked(whole.results)


def _runs(sweep: Sweep) -> pd.DataFrame:
    table = read_runs(sweep.results / "tiny" / "runs.csv")
    assert set(table["status"]) == {"done"}
    assert table["run_id"].is_unique
    return table


def _tracked(results: Path) -> dict[str, list[tuple[str, int]]]:
    """Run id to (status, points) of its MLflow runs; a point that is there twice fails."""
    with sqlite3.connect(results / "mlflow.db") as database:
        twice = "select run_uuid, key, step from metrics group by 1, 2, 3 having count(*) > 1"
        assert database.execute(twice).fetchall() == []
        rows = database.execute(
            "select value, status, (select count(*) from metrics where metrics.run_uuid = "
            "runs.run_uuid and key = 'train/loss') from runs left join tags "
            "on runs.run_uuid = tags.run_uuid and tags.key = 'run_id'"
        ).fetchall()
    runs: dict[str, list[tuple[str, int]]] = {}
    for run_id, status, points in rows:
        runs.setdefault(run_id, []).append((status, points))
    return runs


def _listed(survived: Counter[str]) -> str:
    return ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in survived.items())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
