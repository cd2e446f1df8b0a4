"""One run without Ray: train it, ask it for facts, block parts of its bank, merge its parts.

probe and block take the folder of a run, as results/runs/RUN_ID, or of a grid, as results/GRID:
then every finished run of its runs.csv is asked, and one table is written beside it.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from core.config import Runtime, load_config, parse_section
from core.device import check_device
from core.errors import InputError
from core.gather import RUNS, gather
from core.identity import run_id
from core.record import KEYS, RunRecord

if TYPE_CHECKING:
    import pandas as pd

    from core.blocking import Blocking

# torch takes seconds to import; what can be refused without it is refused before.


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 for a finished command, 1 for a diverged run, 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        check_device(options.device)
        places = {name: getattr(options, name) for name in ("results", "device", "bank")}
        status: int = options.run(options, parse_section(Runtime, places, "options"))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m core",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    shared.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    shared.add_argument("--bank", default="device", help="device (default), host or disk")

    def command(name: str, run: Callable[..., int], what: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[shared], help=what, description=what)
        added.set_defaults(run=run)
        return added

    train = command("train", _train, "train the run that a YAML file describes")
    train.add_argument("config", type=Path, help="YAML file with the fields of one run")
    probe = command("probe", _probe, "ask for facts, by how often the training text states them")
    block = command("block", _block, "switch off parts of the bank: what is forgotten, what kept")
    for measure in (probe, block):
        measure.add_argument("folder", type=Path, help="results/runs/RUN_ID or results/GRID")
    block.add_argument(
        "--best", type=int, action="append", default=[], metavar="K",
        help="the 1/K of the bank that matches each text best (default: 16, 8, 4, 2)",
    )  # fmt: skip
    block.add_argument(
        "--cluster", action="append", default=[], metavar="LEVEL:NUMBER",
        help="a cluster and all under it, as 1:0",
    )  # fmt: skip
    merge = command("merge", _merge, "merge runs that share out level 1 with train.tree_part")
    merge.add_argument("target", type=Path, help="folder of the merged run, to be made")
    merge.add_argument("parts", type=Path, nargs="+", help="folders of the runs")
    posthoc = command("posthoc", _posthoc, "train a bank on a frozen pretrained model")
    posthoc.add_argument("config", type=Path, help="YAML file: model, widths, tree, train, ...")
    return parser


def _train(options: argparse.Namespace, runtime: Runtime) -> int:
    config = load_config(options.config)
    folder = runtime.results / "runs" / run_id(config)
    from core.train import train_run

    return _show_record(train_run(config, runtime, folder, _print_point), folder)


def _show_record(record: RunRecord, folder: Path) -> int:
    print(f"{record.status}: {folder}  {record.cause}")
    for split, keys in KEYS.items():
        losses = {key: getattr(record, f"loss_{split}_{key}") for key in keys}
        shown = "  ".join(f"{key} {loss:.4f}" for key, loss in losses.items())
        print(f"{split} loss, nats/token, second part, by key: {shown}")
    return 0 if record.status == "done" else 1


def _print_point(point: dict[str, float]) -> None:
    print(
        f"step {point['step']:6.0f}  tokens {point['tokens']:10.0f}  loss {point['loss']:.4f}  "
        f"{point['tokens_per_second']:.0f} tokens/CPU s",
        flush=True,
    )


def _probe(options: argparse.Namespace, runtime: Runtime) -> int:
    _known(options.folder)
    from core.probes import probe_run, summarise

    frame = _measure(options.folder, runtime, "probes", partial(probe_run, runtime=runtime))
    if frame is not None:
        print(summarise(frame).to_string(index=False, float_format="%.3f"))
    return 0


def _block(options: argparse.Namespace, runtime: Runtime) -> int:
    _known(options.folder)
    from core.blocking import block_best, parse_cluster
    from core.forgetting import block_run

    clusters = [parse_cluster(text) for text in options.cluster]
    blockings: list[Blocking] = [*map(block_best, options.best), *clusters]
    if blockings and (options.folder / RUNS).exists():
        raise InputError("--best and --cluster are for one run; give results/runs/RUN_ID")
    measure = partial(block_run, runtime=runtime, blockings=blockings)
    frame = _measure(options.folder, runtime, "blocking", measure)
    if frame is not None:
        print(frame.drop(columns="run_id").to_string(index=False, float_format="%.4f"))
    return 0


def _known(folder: Path) -> None:
    if not any((folder / name).exists() for name in (RUNS, "config.yaml")):
        raise InputError(
            f"{folder}: neither a run's folder (config.yaml) nor a grid's ({RUNS}); "
            "give results/runs/RUN_ID or results/GRID"
        )


def _measure(
    folder: Path, runtime: Runtime, name: str, measure: "Callable[[Path], pd.DataFrame]"
) -> "pd.DataFrame | None":
    """The table of one run; None for a grid, whose table is written beside its runs."""
    if not (folder / RUNS).exists():
        return measure(folder)
    gather(folder, runtime.results / "runs", name, measure, partial(print, flush=True))
    print(f"table: {folder / name}.csv\nnext: make plots")
    return None


def _merge(options: argparse.Namespace, runtime: Runtime) -> int:
    from core.merging import merge_runs

    return _show_record(merge_runs(options.parts, options.target, runtime), options.target)


def _posthoc(options: argparse.Namespace, runtime: Runtime) -> int:
    from core.posthoc.run import load_posthoc_config, posthoc_id, train_posthoc

    config = load_posthoc_config(options.config)
    folder = runtime.results / "runs" / posthoc_id(config, runtime.cache)
    losses = train_posthoc(config, runtime, folder, _print_step)
    print(f"done: {folder}")
    shown = "  ".join(f"{name.removeprefix('loss_test_')} {x:.4f}" for name, x in losses.items())
    print(f"test loss, nats per token of the model's tokenizer, second part, by key: {shown}")
    return 0


def _print_step(step: int, steps: int, loss: float) -> None:
    if step == steps or step % max(1, steps // 20) == 0:
        print(f"step {step} of {steps}  loss {loss:.4f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
