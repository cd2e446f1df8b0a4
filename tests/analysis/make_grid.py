"""Writes tests/data/grid: a synthetic grid that varies all that a report can show.

    python -m tests.analysis.make_grid

Losses follow EffectiveParameters with TRUTH, plus what a seed does to every arm and noise; a memory
on a random tree is worth what a generic one is. One run diverged and one failed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.memory_laws import find_law
from core.record import KEYS, RunRecord, Status, to_frame, write_runs

FOLDER = Path(__file__).parents[1] / "data" / "grid"
QUESTION = "# What is a memory worth, by size, bank, placement, type and tokens?\nbase: {}\n"
LAW = find_law("memory-parameters")
TRUTH = {"E": 2.5, "A": 40.0, "B": 60.0, "alpha": 0.3, "beta": 0.3, "kappa": 1.2, "omega": 0.2}
OF_SEED, NOISE = 0.01, 0.003  # nats
ANCHORS = {"4x32": 50_720, "4x48": 112_944, "4x64": 199_808, "4x96": 446_304, "4x128": 790_144}
LEAVES = 16
BUDGETS = (400_000, 800_000, 1_600_000)
MAIN = BUDGETS[1]
ISOFLOPS = (4e11, 9e11, 2e12)
ORACLE = "oracle (bound)"
BUCKETS = ("0", "1", "2-3", "4-7", "8-15", "16-63", "64+")
FACTS = 6  # of each bucket
BLOCKED = (16, 4, 2)  # 1/k of the bank


def main() -> None:
    """Writes the folder."""
    rng = np.random.default_rng(0)
    records = [_record(rng, *point) for point in _points()]
    runs = to_frame([*records, *_lost()]).round(6)
    write_runs(runs, FOLDER / "runs.csv")
    (FOLDER / "columns.csv").unlink()
    (FOLDER / "grid.yaml").write_text(QUESTION)
    tables = {"curves": _curves(records), "probes": _probes(rng, records)}
    for name, table in {**tables, "blocking": _blocking(rng, records)}.items():
        table.round(6).to_csv(FOLDER / f"{name}.csv", index=False)


def _points() -> Iterator[tuple[str, dict[str, Any], str, int, int]]:
    """Arm, memory, anchor, tokens, seed."""
    for tokens in BUDGETS:
        seeds = range(3 if tokens == MAIN else 2)
        for anchor, n in ANCHORS.items():
            yield from (("dense", {}, anchor, tokens, seed) for seed in seeds)
            if anchor != "4x128":
                yield from (("ffn", _memory(n // 4), anchor, tokens, seed) for seed in seeds)
    for flops in ISOFLOPS:
        for anchor, n in ANCHORS.items():
            yield "dense-isoflop", {}, anchor, round(flops / 6 / n), 0
    for arm, memory, anchor in _at_main_budget():
        yield from ((arm, memory, anchor, MAIN, seed) for seed in range(3))


def _at_main_budget() -> Iterator[tuple[str, dict[str, Any], str]]:
    for anchor in list(ANCHORS)[:3]:
        m = ANCHORS[anchor] // 4
        yield "generic", _memory(m, "generic", clusters=1), anchor
        yield "ffn-random", _memory(m, embedder="random"), anchor
    for anchor in ("4x48", "4x64"):
        m = ANCHORS[anchor] // 4
        for placement in ("first", "last"):
            yield f"ffn-{placement}", _memory(m, placement=placement), anchor
        for kind in ("kv", "lora-ffn"):
            yield kind, _memory(m, kind), anchor
    n = ANCHORS["4x64"]
    for part in (16, 8, 2):
        yield "ffn-fetched", _memory(n // part), "4x64"
    for clusters in (3, 27, 81):
        yield "ffn-bank", _memory(n // 4, clusters=clusters), "4x64"


def _memory(
    fetched: int, kind: str = "ffn", clusters: int = 9, placement: str = "uniform", **more: Any
) -> dict[str, Any]:
    """Columns of a record; `clusters` is how many blocks' worth the bank holds."""
    path = {} if kind == "generic" else {"embedder": "tfidf", "branching": "4-4"}
    sizes = {"n_fetched": fetched, "n_bank": clusters * fetched}
    return {"memory_type": kind, "placement": placement, **path, **sizes, **more}


def _record(
    rng: np.random.Generator, arm: str, memory: dict[str, Any], anchor: str, tokens: int, seed: int
) -> RunRecord:
    n, m, w = ANCHORS[anchor], memory.get("n_fetched", 0), memory.get("n_bank", 0)
    routed = w > m and memory["embedder"] != "random"
    better = {"first": -0.02, "last": 0.01}.get(memory.get("placement", ""), 0.0)
    better += {"kv": -0.01, "lora-ffn": -0.03}.get(memory.get("memory_type", ""), 0.0)
    of_seed = OF_SEED * float(np.random.default_rng(seed).normal())
    loss = _loss(n, tokens, m, w if routed else m) - better + of_seed + rng.normal(0, NOISE)
    extra = {"document": -0.02, "shuffled": 0.05, "off": 0.15} if routed else {}
    extra = {"off": 0.12} if w > m and not routed else extra
    losses = {
        f"loss_{split}_{key}": loss + extra.get(key, 0.0) + rng.normal(0, 1e-4)
        for split, keys in KEYS.items()
        for key in keys
    }
    return RunRecord(
        run_id=f"{arm}-{anchor}-{m}-{w}-{tokens}-{seed}",
        grid="grid",
        arm=arm,
        anchor=anchor,
        seed=seed,
        lr=4e-3,
        memory_lr=2e-2 if m else float("nan"),
        n_anchor=n,
        n_embed=4096 * int(anchor.split("x")[1]),
        n_runtime=n + m,
        token_budget=tokens,
        tokens=tokens - 100 * seed,  # padding differs
        tokens_per_block_parameter=2 * tokens / LEAVES / m if w > m else float("nan"),
        flops_per_token=6.0 * (n + m),
        train_flops=6.0 * (n + m) * tokens,
        bytes_per_prompt=2 * m if w > m else 0,
        finished="2026-01-02T03:04:05+00:00",
        **memory,
        **losses,
    )


def _loss(n: float, d: float, m: float = 0.0, w: float = 0.0) -> float:
    x = {name: np.array([float(v)]) for name, v in (("N", n), ("D", d), ("M", m), ("W", w))}
    return float(LAW.curve(TRUTH, x)[0])


def _lost() -> list[RunRecord]:
    known = {"anchor": "4x96", "seed": 3, "token_budget": MAIN}
    return [
        RunRecord(run_id="lost", arm="ffn", status=Status.DIVERGED, cause="loss is NaN", **known),
        RunRecord(run_id="broken", arm="kv", status=Status.FAILED, cause="disk is full", **known),
    ]


def _curves(records: list[RunRecord]) -> pd.DataFrame:
    """Batch losses along the training of dense and ffn runs with seed 0 at the main budget."""
    shown = [
        r
        for r in records
        if r.seed == 0 and r.token_budget == MAIN and r.arm in ("dense", "ffn", "generic")
    ]
    rows = [
        (r.run_id, i, r.tokens * i // 12, _loss(r.n_runtime, r.tokens * i / 12), r.lr)
        for r in shown
        for i in range(1, 13)
    ]
    return pd.DataFrame(rows, columns=["run_id", "step", "tokens", "loss", "lr"])


def _asked(records: list[RunRecord], arms: tuple[str, ...]) -> list[RunRecord]:
    return [r for r in records if r.arm in arms and r.anchor == "4x64" and r.token_budget == MAIN]


def _probes(rng: np.random.Generator, records: list[RunRecord]) -> pd.DataFrame:
    """ffn knows more of the long tail than the others."""
    rows: list[dict[str, Any]] = []
    for r in _asked(records, ("dense", "generic", "ffn", "ffn-random")):
        routes = {"none": ["on"], "generic": ["off", "on"]}
        for route in routes.get(r.memory_type, ["off", "prompt", ORACLE]):
            bonus = {"prompt": 0.15, ORACLE: 0.25}.get(route, 0.0) if r.arm == "ffn" else 0.0
            rows += [
                _answer(r.run_id, bucket, route, i, rng.random() < 0.05 + 0.12 * b + bonus)
                for b, bucket in enumerate(BUCKETS)
                for i in range(FACTS)
                if not (route == ORACLE and bucket == "0")
            ]
    return pd.DataFrame(rows)


def _answer(run_id: str, bucket: str, route: str, fact: int, exact: bool) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "probe": "capitals",
        "subject": f"country {bucket} {fact}",
        "answer": f"city {fact}",
        "frequency": int(bucket.split("-")[0].strip("+")),
        "bucket": bucket,
        "route": route,
        "exact": exact,
        "rank": 1 if exact else 3,
        "answers": FACTS,
        "logprob": -1.0 if exact else -3.0,
    }


def _blocking(rng: np.random.Generator, records: list[RunRecord]) -> pd.DataFrame:
    """ffn forgets in proportion to what is blocked; a random tree has little to lose."""
    rows: list[dict[str, Any]] = []
    for r in _asked(records, ("ffn", "ffn-random")):
        worst, known = (0.3, 20) if r.arm == "ffn" else (0.02, 12)
        for share in (0.0, *(1 / part for part in BLOCKED)):
            forgotten = int(rng.binomial(known, min(1.0, 1.5 * worst * share)))
            name = f"best 1/{round(1 / share)}" if share else "nothing"
            loss = r.loss_test_prefix + worst * share
            row = {"run_id": r.run_id, "blocking": name, "blocked": share, "loss": loss}
            facts = {"asked": 42, "known": known, "forgotten": forgotten}
            rows.append(row | facts | {"kept": known - forgotten})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
