"""Commands: run, status, dry-run, data, publish, keep. Bad input is one line and exit status 2."""

import argparse
import json
import os
import sys
from pathlib import Path

from core.config import Runtime, parse_section
from core.errors import InputError
from sweeps.grid import Grid, load_grid
from sweeps.interruption import Interrupted
from sweeps.keep import keep
from sweeps.needs import refuse_unfit_runs, refuse_what_cannot_fit
from sweeps.plan import describe_plan, show_plan
from sweeps.status import describe_status, show_status
from sweeps.storage import SharedStorage
from sweeps.store import Store


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 all finished, 1 some runs failed, 2 bad input, 130 interrupted."""
    given = _parser().parse_args(arguments)
    try:
        if given.command == "publish":
            return _publish(given)
        if given.command == "keep":
            print(f"kept in {keep(Path(given.grid).stem, given.results)}")
            return 0
        if given.command == "data":
            return _pack(given)
        grid = load_grid(given.grid, given.seeds)
        runtime, store = _runtime(given), _open(given)
        store.fetch_finished(grid)
        if given.command == "run":
            return _run(grid, store, runtime, given)
        _print(grid, store, runtime, given)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sweeps", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run what is not finished")
    run.add_argument("--device", help="cpu or cuda; default: the GPU where there is one")
    run.add_argument("--gpu-share", type=float, default=1.0, help="of a GPU for one trial, as 0.25")
    run.add_argument("--processes", type=int, default=1, help="that train one trial together")
    run.add_argument("--checkpoint-seconds", type=float, default=30.0, help="from one to the next")
    run.add_argument("--until", type=float, help="Unix time at which to stop as by Ctrl-C")
    status = commands.add_parser("status", help="what is done, running, failed, to do")
    plan = commands.add_parser("dry-run", help="what would run, and its cost")
    for command in (status, plan):
        command.add_argument("--json", action="store_true", help="for programs")
    publish = commands.add_parser("publish", help="log the report of a grid in MLflow")
    kept = commands.add_parser("keep", help="copy a grid's tables to results/reference")
    data = commands.add_parser("data", help="pack the text of grids for a machine without network")
    data.add_argument("grids", nargs="+", help="as in run", metavar="grid")
    data.add_argument("--results", type=Path, default=Path("results"))
    for command in (run, plan):
        command.add_argument("--bank", default="device", help="device (default), host or disk")
    for command in (run, status, plan, publish, kept):
        command.add_argument("grid", help="a grid's name, or the path of its .yaml file")
        command.add_argument("--results", type=Path, default=Path("results"))
    for command in (run, status, plan):
        command.add_argument("--storage", metavar="URI", help="for nodes that do not share RESULTS")
        command.add_argument("--seeds", type=int, help="number of seeds, in place of the grid's")
    return parser


def _open(given: argparse.Namespace) -> Store:
    if given.storage and getattr(given, "processes", 1) > 1:
        raise InputError(
            f"--storage {given.storage} with --processes {given.processes}: the processes of a "
            "trial share its folder; give --results on a file system that all nodes see instead"
        )
    storage = SharedStorage(given.storage, given.results) if given.storage else None
    return Store(given.results, storage)


def _runtime(given: argparse.Namespace) -> Runtime:
    """Where the runs train, but for the device: Ray knows what there is."""
    fields = ("bank", "processes", "checkpoint_seconds")
    values = {name: value for name, value in vars(given).items() if name in fields}
    return parse_section(Runtime, values | {"results": given.results.absolute()}, "options")


def _print(grid: Grid, store: Store, runtime: Runtime, given: argparse.Namespace) -> None:
    if given.command == "status":
        described, show = describe_status(grid, store), show_status
    else:
        _refuse(grid, store, runtime)
        described, show = describe_plan(grid, store, not given.json, runtime.bank), show_plan
    print(json.dumps(described, indent=2) if given.json else show(described))


def _refuse(grid: Grid, store: Store, runtime: Runtime) -> None:
    pending = store.pending(grid)
    refuse_unfit_runs(grid, pending, runtime)
    refuse_what_cannot_fit(grid, pending, store, runtime.bank)


def _publish(given: argparse.Namespace) -> int:
    if "MLFLOW_TRACKING_URI" in os.environ or (given.results / "mlflow.db").exists():
        from sweeps.publish import publish  # MLflow: seconds

        publish(Path(given.grid).stem, given.results)
    return 0


def _pack(given: argparse.Namespace) -> int:
    from sweeps.data import pack_data  # torch: seconds

    bundle = pack_data([load_grid(name) for name in given.grids], given.results)
    print(f"{bundle}: {bundle.stat().st_size / 1e6:.1f} MB; there: tar xf {bundle.name} -C RESULTS")
    return 0


def _run(grid: Grid, store: Store, runtime: Runtime, given: argparse.Namespace) -> int:
    if not store.pending(grid) and not store.undelivered(grid):
        store.collect(grid)
        print(_ending(grid, store, "nothing to do: "))
        return 0
    _refuse(grid, store, runtime)
    with store.only_driver():
        return _launch(grid, store, runtime, given)


def _launch(grid: Grid, store: Store, runtime: Runtime, given: argparse.Namespace) -> int:
    from sweeps.launch import Options, launch  # Ray, MLflow and torch: seconds, only where needed

    try:
        launch(grid, store, Options(given.device, given.gpu_share, runtime, given.until))
    except Interrupted:
        total = len({trial.run_id for trial in grid.trials})
        done = total - len(Store(store.results).pending(grid))
        print(
            f"interrupted; {done} of {total} done; run the same command to go on", file=sys.stderr
        )
        return 130
    except OSError as error:
        print(f"error: {error}; mend this and run the same command to go on", file=sys.stderr)
        return 1
    print(_ending(grid, store, ""))
    return 1 if store.pending(grid) else 0


def _ending(grid: Grid, store: Store, opening: str) -> str:
    counts = describe_status(grid, store)["counts"]
    shown = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    table = store.results / grid.name / "runs.csv"
    again = "; run the same command to try the failed ones again" if counts["failed"] else ""
    return f"{opening}{shown}{again}\ntable: {table}\nnext: make plots, make ui"


if __name__ == "__main__":
    sys.exit(main())
