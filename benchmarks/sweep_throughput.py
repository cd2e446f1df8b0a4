"""Does a trial of a sweep train as fast as a run alone?

    python benchmarks/sweep_throughput.py --out benchmarks/sweep_throughput.csv

Six points of the grid `quick` on its text, with fewer tokens. A sweep trains them two at a time;
alone they train in turn in one process, with the same allocator settings and paths, twice.
CPU seconds a million trained tokens, evaluation apart. Give it two free cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from core.config import Runtime
from core.paths import kept_paths
from core.record import read_runs
from core.train import train_run
from sweeps.grid import Grid, load_grid
from sweeps.ray_session import WORKERS

GRID = """\
# Do trials train as fast as runs alone?
base:
  train: {tokens: TOKENS, batch_size: 8, beta2: 0.99}
arms:
  dense:
    axes: {anchor: [d32, d48, d64]}
  ffn:
    memory: {type: ffn}
    zip:
      - {anchor: d32, memory.widths: [10, 4]}
      - {anchor: d48, memory.widths: [16, 3]}
      - {anchor: d64, memory.widths: [20, 2]}
seeds: [0]
"""
FIGURES = ["arm", "anchor", "tokens", "train_seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=float, default=3e5)
    parser.add_argument("--results", type=Path, default=Path("results"), help="holds the text")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        _train_alone(load_grid(str(given.alone / "throughput.yaml")), given.alone)
        return
    with tempfile.TemporaryDirectory(dir=given.results) as name:
        folder = Path(name)
        grid = folder / "throughput.yaml"
        grid.write_text(GRID.replace("TOKENS", f"{given.tokens:g}"))
        (folder / "cache").symlink_to((given.results / "cache").absolute())
        sweep = _sweep(grid, folder)
        alone = pd.concat([_alone(folder), _alone(folder)])
        table = _compare(sweep, alone)
    table.to_csv(given.out, index=False)
    print(table.to_string(index=False))


def _sweep(grid: Path, folder: Path) -> pd.DataFrame:
    _command("-m", "sweeps", "run", str(grid), "--results", str(folder))
    return read_runs(folder / "throughput" / "runs.csv")[FIGURES]


def _alone(folder: Path) -> pd.DataFrame:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        for shared in ("throughput.yaml", "cache", "throughput"):
            (Path(name) / shared).symlink_to((folder / shared).absolute())
        _command(__file__, "--out", os.devnull, "--alone", name)
        return pd.read_csv(Path(name) / "alone.csv")


def _train_alone(grid: Grid, folder: Path) -> None:
    paths = kept_paths(folder / "throughput", lambda: sys.exit("the sweep kept no paths"))
    runtime = Runtime(results=folder, paths=paths)
    records = [
        train_run(trial.config, runtime, folder / "runs" / trial.run_id, lambda point: None)
        for trial in grid.trials
    ]
    rows = [
        {"arm": trial.arm, **{name: getattr(record, name) for name in FIGURES[1:]}}
        for trial, record in zip(grid.trials, records, strict=True)
    ]
    pd.DataFrame(rows).to_csv(folder / "alone.csv", index=False)


def _command(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, env=os.environ | WORKERS)


def _compare(sweep: pd.DataFrame, alone: pd.DataFrame) -> pd.DataFrame:
    points = ["arm", "anchor"]
    millions = alone.groupby(points)["tokens"].first() / 1e6
    seconds = alone.groupby(points)["train_seconds"]
    own = sweep.set_index(points)
    table = pd.DataFrame(
        {
            "sweep": own["train_seconds"] / millions,
            "alone": seconds.mean() / millions,
            "ratio": own["train_seconds"] / seconds.mean(),
            "alone_twice": seconds.max() / seconds.min(),
        }
    )
    total = own["train_seconds"].sum() / seconds.mean().sum()
    print(f"all points: {total:.3f} times the CPU time of runs alone")
    return table.reset_index().round(3)


if __name__ == "__main__":
    main()
