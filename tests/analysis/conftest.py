"""Synthetic grids: runs that follow a known law, so that answers can be checked."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.runs import one_count_a_budget
from core.record import KEYS, RunRecord, Status, to_frame, write_runs

ANCHORS = {"4x32": 50_000, "4x48": 110_000, "4x64": 200_000, "4x96": 440_000, "4x128": 790_000}
TOKENS = 1_500_000
# An ffn parameter that is fetched counts as this many dense ones.
WORTH = 3.0


def true_loss(n_effective: float) -> float:
    return float(2.6 + 40 / n_effective**0.27)


def make_runs(seeds: int = 2, noise: float = 0.004, shared: float = 0.012) -> pd.DataFrame:
    """Dense at five sizes, generic and ffn at three; `shared` is what a seed does to every arm."""
    rng = np.random.default_rng(0)
    of_seed = rng.normal(0, shared, seeds)
    records = []
    for arm, kind, names in (
        ("dense", "none", list(ANCHORS)),
        ("generic", "generic", list(ANCHORS)[:3]),
        ("ffn", "ffn", list(ANCHORS)[:3]),
    ):
        for name in names:
            n = ANCHORS[name]
            fetched = 0 if kind == "none" else n // 8
            worth = {"none": 0.0, "generic": 1.0, "ffn": WORTH}[kind]
            for seed in range(seeds):
                loss = true_loss(n + worth * fetched) + of_seed[seed] + rng.normal(0, noise)
                extra = {"document": -0.03, "shuffled": 0.2, "off": 0.3} if kind == "ffn" else {}
                losses = {
                    f"loss_{split}_{key}": loss + extra.get(key, 0.0)
                    for split, keys in KEYS.items()
                    for key in keys
                }
                records.append(
                    RunRecord(
                        run_id=f"{arm}{name}s{seed}",
                        grid="quick",
                        arm=arm,
                        seed=seed,
                        anchor=name,
                        memory_type=kind,
                        n_anchor=n,
                        n_embed=n,
                        n_fetched=fetched,
                        n_bank={"none": 0, "generic": fetched, "ffn": 9 * fetched}[kind],
                        n_runtime=n + fetched,
                        token_budget=TOKENS + 1000,
                        tokens=TOKENS + seed,  # padding differs
                        flops_per_token=6.0 * (n + fetched),
                        train_flops=6.0 * (n + fetched) * TOKENS,
                        finished="2026-01-02T03:04:05+00:00",
                        **losses,
                    )
                )
    records.append(
        RunRecord(
            run_id="lost", arm="ffn", status=Status.DIVERGED, cause="loss is NaN", anchor="4x64"
        )
    )
    return to_frame(records)


@pytest.fixture
def runs() -> pd.DataFrame:
    frame = make_runs()
    return one_count_a_budget(frame[frame["status"] == "done"].reset_index(drop=True))


@pytest.fixture
def write_grid() -> Callable[[Path], Path]:
    """Writes a grid's folder below `results` and returns results."""

    def write(results: Path) -> Path:
        frame = make_runs()
        write_runs(frame, results / "quick" / "runs.csv")
        curves = [
            (run, step, step * 1500, 4 + 4 * np.exp(-step / 150), 0.01)
            for run in frame.loc[frame["status"] == "done", "run_id"]
            for step in range(0, 1000, 100)
        ]
        columns = ["run_id", "step", "tokens", "loss", "lr"]
        pd.DataFrame(curves, columns=columns).to_csv(results / "quick" / "curves.csv", index=False)
        question = "# What is a memory worth?\n# Three arms.\nbase: {}\n"
        (results / "quick" / "grid.yaml").write_text(question)
        return results

    return write
