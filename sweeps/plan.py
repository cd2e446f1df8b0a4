"""What a grid would cost, run by run, and how well its trees route: nothing starts.

Without torch, Ray or MLflow, a calibration apart.
"""

import math
import os
from collections.abc import Iterable
from dataclasses import asdict
from statistics import median
from typing import Any

from core.accounting import (
    bytes_per_prompt,
    count_parameters,
    full_bank_disk_bytes,
    tokens_per_block_parameter,
    training_flops_per_token,
)
from core.config import Runtime
from core.dataset import dataset_folder, read_tree_report
from core.identity import tree_fingerprint
from sweeps.calibration import calibrate, kept_rate
from sweeps.grid import Grid
from sweeps.needs import disk_needed, gibibytes, memory_needed, most_disk
from sweeps.status import OVER, Standing, estimate, show_left, standings
from sweeps.store import Store
from sweeps.text import show_number, text_table

PLAN_HEADER = (
    "run",
    "N",
    "embed",
    "M",
    "bank",
    "tokens",
    "FLOP",
    "memory",
    "disk",
    "tokens per block parameter",
    "state",
)


def describe_plan(
    grid: Grid, store: Store, measure: bool = False, bank: str = "device"
) -> dict[str, Any]:
    """What `dry-run --json` prints: the cost of every run.

    With `measure` a run that is to do trains for some seconds where nothing else tells how long the
    grid will take; torch is loaded for that alone.
    """
    found = standings(grid, store)
    if measure and not any(s.record for s in found):
        calibrate(found, store, bank)
    seconds, basis = estimate(found, os.cpu_count() or 1, kept_rate(found, store))
    return {
        "grid": grid.name,
        "question": grid.question,
        "seconds_left": seconds,
        "estimated_from": basis,
        "disk_bytes": most_disk(grid, grid.trials, bank),
        "trees": _trees(grid, store),
        "runs": [_run_plan(s, bank) for s in found],
    }


def _trees(grid: Grid, store: Store) -> list[dict[str, Any]]:
    """Each tree of the grid, and how well it routes once it is prepared."""
    cache = Runtime(results=store.results).cache
    trees = []
    for data, tree in dict.fromkeys((t.config.data, t.config.tree) for t in grid.trials):
        report = read_tree_report(dataset_folder(cache, tree_fingerprint(data, tree)))
        described = tree.model_dump(include={"embedder", "branching", "key"})
        described |= {"corpus": data.corpus, "report": asdict(report) if report else None}
        trees.append(described)
    return trees


def _show_tree(tree: dict[str, Any]) -> str:
    shape = "-".join(map(str, tree["branching"]))
    name = f"tree {shape} of {tree['embedder']} vectors, trained by {tree['key']}"
    if not (report := tree["report"]):
        return f"{name}: not prepared yet, so its leaves and its agreement are not known"
    rows = report["leaf_rows"]
    agreement = _per_level(report["agreement"], "{:.2f}")
    chance = _per_level(report["chance_agreement"], "{:.2f}")
    basis = "by construction" if tree["embedder"] == "random" else f"by chance {chance}"
    sizes = f"{min(rows):,} / {median(rows):,.0f} / {max(rows):,}"
    return "\n".join(
        [
            f"{name}: {len(rows)} leaves, smallest / median / largest {sizes} training rows",
            f"prefix reaches the document's cluster, per level: {agreement} of test windows "
            f"({basis})",
        ]
    )


def _per_level(values: Iterable[float], form: str) -> str:
    return " / ".join(form.format(value) for value in values)


def _run_plan(standing: Standing, bank: str) -> dict[str, Any]:
    config, counts = standing.trial.config, count_parameters(standing.trial.config)
    per_level = tokens_per_block_parameter(config)
    return {
        "name": standing.trial.name,
        "run_id": standing.trial.run_id,
        "arm": standing.trial.arm,
        "state": standing.state,
        "n_anchor": counts.anchor,
        "n_embed": counts.embed,
        "n_fetched": counts.fetched,
        "n_bank": counts.bank,
        "n_runtime": counts.runtime,
        "bytes_per_prompt": bytes_per_prompt(config),
        "tokens": config.train.tokens,
        "train_flops": training_flops_per_token(config) * config.train.tokens,
        "memory_bytes": memory_needed(config, bank),
        "disk_bytes": disk_needed(config, bank),
        "full_bank_disk_bytes": full_bank_disk_bytes(config) if bank == "disk" else 0,
        "tokens_per_block_parameter": [None if math.isnan(v) else v for v in per_level],
    }


def show_plan(described: dict[str, Any]) -> str:
    """The same as text: a line a run, then the sums."""
    runs = described["runs"]
    done = sum(run["state"] in OVER for run in runs)
    flops = sum(run["train_flops"] for run in runs)
    disk = gibibytes(described["disk_bytes"])
    sums = f"{len(runs)} runs, {done} done, {show_number(flops)} FLOP, {disk} of disk"
    heading = f"{described['grid']}: {described['question']}"
    return "\n".join(
        [
            heading,
            *(_show_tree(tree) for tree in described["trees"]),
            text_table(PLAN_HEADER, [_plan_row(run) for run in runs]),
            sums,
            *_show_full_bank(runs),
            show_left(described),
        ]
    )


def _show_full_bank(runs: list[dict[str, Any]]) -> list[str]:
    """What the largest bank on disk grows to; its run may end before it reaches every block."""
    largest = max(runs, key=lambda run: int(run["full_bank_disk_bytes"]))
    if not largest["full_bank_disk_bytes"]:
        return []
    full = gibibytes(largest["full_bank_disk_bytes"])
    return [f"{largest['name']}: once every block is trained its bank takes {full} of disk"]


def _plan_row(run: dict[str, Any]) -> list[str]:
    numbers = ("n_anchor", "n_embed", "n_fetched", "n_bank", "tokens", "train_flops")
    per_block = run["tokens_per_block_parameter"]
    return [
        run["name"],
        *(show_number(run[name]) for name in numbers),
        gibibytes(run["memory_bytes"]),
        gibibytes(run["disk_bytes"]),
        " / ".join("-" if value is None else show_number(value) for value in per_block) or "-",
        run["state"],
    ]
