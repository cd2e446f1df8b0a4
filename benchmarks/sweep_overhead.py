"""What a sweep costs besides training, side by side with the plain Ray Tune pattern.

    python benchmarks/sweep_overhead.py --out benchmarks/sweep_overhead.csv

Trials sleep in place of training, so that the cores are free to show what the machinery takes:
each lasts --seconds and gives 100 points of a curve. `memscale` is the real driver with its store
and its tracking; `first` is the same on a text that is not prepared yet, on a machine that has
compiled no loop yet; `plain` is a function trainable with Ray's MLflow callback and a SQLite store,
which has no text. Then 10,000 runs are planned, looked up and reported.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from core.config import Runtime
from core.record import RunRecord, to_frame, write_runs
from sweeps.grid import load_grid
from sweeps.store import Store

POINTS = 100
SLOTS = 2
FIRST = 4  # trials on a text that is not prepared yet
MANY = 10_000
GRID = """\
# How long does everything but training take?
base:
  data: {{corpus: {corpus}, vocab_size: 300, seq_len: 32, min_tokens: 8}}
  tree: {{dimensions: 8, branching: [2, 2]}}
  anchor: d16
arms: {{dense: {{axes: {{train.lr: {rates}}}}}}}
"""
LIGHT = """
import sys
from sweeps.__main__ import main
assert main(sys.argv[1:]) == 0
assert not {"torch", "ray"} & sys.modules.keys()
"""
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--plain-trials", type=int, default=20, help="each starts a worker")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    sides = (
        ("first", _memscale, FIRST),
        ("memscale", _memscale, given.trials),
        ("plain", _plain, given.plain_trials),
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NUMBA_CACHE_DIR"] = str(Path(folder) / "compiled")
        rows = [
            row
            for name, run, trials in sides
            for row in _in_a_process(_measure, name, run, Path(folder), trials, given.seconds)
        ]
    table = pd.DataFrame(rows + _light_commands())
    table.to_csv(given.out, index=False)
    print(table.to_string(index=False))


def _in_a_process(measure: Callable[..., list[Row]], *given: Any) -> list[Row]:
    """Of its own, which has imported nothing for another side."""
    with ProcessPoolExecutor(1, get_context("fork")) as process:
        return process.submit(measure, *given).result()


def _measure(
    name: str, run: Callable[[Path, int, float], None], folder: Path, trials: int, seconds: float
) -> list[Row]:
    for left in ("times", "results/runs", "results/overhead"):  # by the side before
        shutil.rmtree(folder / left, ignore_errors=True)
    began = time.time()
    run(folder, trials, seconds)
    ended = time.time()
    times = pd.DataFrame([json.loads(path.read_text()) for path in folder.glob("times/*")])
    first, last = times["began"].min(), times["ended"].max()
    idle = SLOTS * (last - first) - (times["ended"] - times["began"]).sum()
    measured = {
        "a trial and slot": idle / len(times),
        "start-up": first - began,
        "ending": ended - last,
    }
    return [_row(name, len(times), what, value) for what, value in measured.items()]


def _row(name: str, trials: int, what: str, seconds: float) -> Row:
    return {"sweep": name, "trials": trials, "measured": what, "seconds": round(seconds, 3)}


def _sleep(times: Path, name: str, seconds: float) -> Iterator[dict[str, float]]:
    """In place of training: points of a curve, and a note of when it began and ended."""
    began = time.time()
    for step in range(1, POINTS + 1):
        time.sleep(max(0.0, began + seconds * step / POINTS - time.time()))
        yield {"step": step, "tokens": step, "loss": 5.0, "lr": 0.1, "tokens_per_second": 1.0}
    times.mkdir(exist_ok=True)
    (times / name).write_text(json.dumps({"began": began, "ended": time.time()}))


def _write_grid(folder: Path, trials: int) -> Path:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghij", k=5)) for _ in range(400)]
    texts = (" ".join(draw.choices(words, k=120)) for _ in range(300))
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    rates = [round(1e-6 * number, 6) for number in range(1, trials + 1)]
    path = folder / "overhead.yaml"
    path.write_text(GRID.format(corpus=folder / "text.jsonl", rates=rates))
    return path


def _memscale(folder: Path, trials: int, seconds: float) -> None:
    from sweeps import launch  # a second, which is part of the start

    def sleeping_trial(point: dict[str, str]) -> None:
        from ray import tune

        import core.train  # noqa: F401  # as a trial that trains: seconds, once a worker
        from sweeps.trial import Reports, on_agreed_paths, settings_of

        trial, reports = settings_of(point), Reports(tune.report)
        on_agreed_paths(trial, Runtime.model_validate_json(json.dumps(trial["runtime"])), None)
        run = Path(trial["runtime"]["results"]) / "runs" / trial["run_id"]
        run.mkdir(parents=True)
        for point in _sleep(folder / "times", trial["run_id"], seconds):
            reports.add(point)
        record = RunRecord(run_id=trial["run_id"], finished="2026-01-01T00:00:00+00:00")
        (run / "record.json").write_text(json.dumps(record.__dict__))
        reports.flush()

    resources = launch._resources

    def resources_of_sleep(options: launch.Options) -> tuple[Runtime, dict[str, float]]:
        from sweeps import tuning  # not before Ray has started, as the driver does

        tuning.run_trial = sleeping_trial
        return resources(options)

    launch._resources = resources_of_sleep
    grid = load_grid(str(_write_grid(folder, trials)))
    options = launch.Options("cpu", 1.0, Runtime(results=folder / "results"))
    launch.launch(grid, Store(folder / "results"), options)


def _plain(folder: Path, trials: int, seconds: float) -> None:
    from ray import init, shutdown, tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    def sleeping_trial(settings: dict[str, Any]) -> None:
        import core.train  # noqa: F401

        for point in _sleep(folder / "times", str(settings["number"]), seconds):
            tune.report(point)

    init(address="local", num_cpus=SLOTS, include_dashboard=False, log_to_driver=False)
    tracking = MLflowLoggerCallback(f"sqlite:///{folder}/mlflow.db", experiment_name="plain")
    tune.Tuner(
        sleeping_trial,
        param_space={"number": tune.grid_search(list(range(trials)))},
        run_config=tune.RunConfig(storage_path=str(folder), callbacks=[tracking], verbose=0),
    ).fit()
    shutdown()


def _light_commands() -> list[Row]:
    """Plan, status and skip of a finished grid, each a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = _write_grid(folder, MANY)
        records = [RunRecord(run_id=trial.run_id) for trial in load_grid(str(path)).trials]
        write_runs(to_frame(records), folder / "results" / "earlier" / "runs.csv")
        commands = {"plan": ["dry-run", "--json"], "status": ["status", "--json"], "skip": ["run"]}
        return [
            _row("memscale", MANY, what, _time([*command, str(path)], folder / "results"))
            for what, command in commands.items()
        ]


def _time(command: list[str], results: Path) -> float:
    began = time.time()
    arguments = [sys.executable, "-c", LIGHT, *command, "--results", str(results)]
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    return time.time() - began


if __name__ == "__main__":
    main()
