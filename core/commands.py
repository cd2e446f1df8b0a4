"""What the commands do, and the lines that they print: each gives the exit status.

torch takes seconds to import, so what can be refused without it is refused before.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from core.config import Runtime, load_config
from core.errors import InputError
from core.gather import RUNS, gather
from core.identity import run_id
from core.record import KEYS, RunRecord

if TYPE_CHECKING:
    import pandas as pd

    from core.blocking import Blocking


def train(options: argparse.Namespace, runtime: Runtime) -> int:
    """Train the run that a YAML file describes."""
    config = load_config(options.config)
    folder = runtime.results / "runs" / run_id(config)
    from core.train import train_run

    return _show_record(train_run(config, runtime, folder, _print_point), folder)


def _show_record(record: RunRecord, folder: Path) -> int:
    print(f"{record.status}: {folder}  {record.cause}".rstrip())
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


def probe(options: argparse.Namespace, runtime: Runtime) -> int:
    """Ask a run, or every run of a grid, for facts."""
    _known(options.folder)
    from core.probes import probe_run, summarise

    frame = _measure(options.folder, runtime, "probes", partial(probe_run, runtime=runtime))
    if frame is not None:
        print(summarise(frame).to_string(index=False, float_format="%.3f"))
    return 0


def block(options: argparse.Namespace, runtime: Runtime) -> int:
    """Block parts of the bank of a run, or shares of those of a grid."""
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


def merge(options: argparse.Namespace, runtime: Runtime) -> int:
    """Merge runs that share out level 1 of the tree."""
    from core.merging import merge_runs

    return _show_record(merge_runs(options.parts, options.target, runtime), options.target)


def posthoc(options: argparse.Namespace, runtime: Runtime) -> int:
    """Train a bank on a frozen pretrained model, and score it."""
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
