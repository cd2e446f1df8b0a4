"""What is a bank worth to a pretrained model that stays as it is, on text of its own kinds?

    python benchmarks/posthoc.py --results results --out results/reference/posthoc

SmolLM2-135M-Instruct in four bits, frozen; ffn blocks in its 30 layers are trained on the default
corpus. Arms: `words`, a tree of MiniLM's word vectors, training windows routed by their prefix;
`random`, a random tree (paths by the hash of a document's id), whose bank learns the text but no
topics; `generic`, one block as large as what the others fetch, for all text. Rates are chosen on
another split of the text (`--tune`: rates.csv), seeds are paired between arms.

losses.csv: a row a run, source of the text and key, in nats per token of the model's tokenizer on
second parts of windows; arm `none` is the model as it was, lowest where it knows the text by heart.
differences.csv: each arm minus `none`, and words minus each other, with intervals over paired
seeds. A run is written as it ends, and what a table holds is not trained again.
"""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from analysis.posthoc import GENERIC, NONE, RANDOM, WORDS, differences
from core.config import Runtime
from core.corpus.prepare import prepare_windows
from core.corpus.sources import describe_sources
from core.posthoc.model import PostHocModel
from core.posthoc.run import (
    BANK,
    PostHocConfig,
    open_posthoc,
    posthoc_id,
    posthoc_losses,
    train_posthoc,
)
from core.record import write_csv

ARMS: dict[str, dict[str, object]] = {
    WORDS: {"tree": {"embedder": "minilm-words", "key": "prefix"}},
    RANDOM: {"tree": {"embedder": "random"}},
    GENERIC: {"memory": GENERIC, "tree": {"embedder": "random"}},
}
RATES = (1e-3, 4e-3, 1.6e-2)
TUNING_SPLIT, SPLIT = 0, 1  # data.split_seed
WINDOWS = 64  # scored of each source
ALL = "all"
KEYS = ("prefix", "document")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--tune", action="store_true", help="choose the rates, on the other split")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    given = parser.parse_args()
    runtime = Runtime(results=given.results)
    rates, losses = given.out / "rates.csv", given.out / "losses.csv"
    if given.tune:
        for arm, rate in product(ARMS, RATES):
            score_once(rates, configure(arm, rate, 0, TUNING_SPLIT), arm, KEYS[:1], runtime)
        return
    best = best_rates(pd.read_csv(rates))
    for seed, arm in product(given.seeds, ARMS):
        config = configure(arm, best[arm], seed, SPLIT)
        score_once(losses, config, NONE, ("off",), runtime)
        score_once(losses, config, arm, KEYS, runtime)
        write_csv(differences(pd.read_csv(losses)), given.out / "differences.csv")


def best_rates(losses: pd.DataFrame) -> dict[str, float]:
    """Of each tree, by the loss under the prefix key over all sources."""
    own = losses[(losses["source"] == ALL) & (losses["key"] == "prefix")].sort_values("loss")
    return {str(arm): float(rates.iloc[0]) for arm, rates in own.groupby("arm")["lr"]}


def score_once(
    table: Path, config: PostHocConfig, arm: str, keys: Sequence[str], runtime: Runtime
) -> None:
    """Add a row a source and key to `table`, but where it has them; train first what must be."""
    run_id = posthoc_id(config, runtime.cache) if arm != NONE else NONE
    if table.exists() and (pd.read_csv(table)["run_id"] == run_id).any():
        return
    rows = score(config, keys, runtime)
    seed = config.seed if arm != NONE else None
    own = rows.assign(run_id=run_id, arm=arm, lr=config.train.lr, seed=seed)
    own["torch"] = torch.__version__
    known = [pd.read_csv(table)] if table.exists() else []  # by now another process may have more
    write_csv(pd.concat([*known, own], ignore_index=True), table)
    print(own[own["source"] == ALL].to_string(index=False, header=False), flush=True)


def score(config: PostHocConfig, keys: Sequence[str], runtime: Runtime) -> pd.DataFrame:
    """Losses by source and key, and their mean over sources."""
    folder = runtime.results / "runs" / posthoc_id(config, runtime.cache)
    if not (folder / BANK).exists():
        train_posthoc(config, runtime, folder, lambda *_: None)
    subject = open_posthoc(folder, runtime)
    assert isinstance(subject.model, PostHocModel)
    split = prepare_windows(config.data, runtime.cache).split("test")
    rng = np.random.default_rng(0)  # the same windows for every run
    rows = []
    for number, source in enumerate(describe_sources(config.data.corpus)):
        there = rng.permutation(np.flatnonzero(split.source == number))[:WINDOWS]
        losses = posthoc_losses(subject.model, config, runtime, split, subject.router, there, keys)
        rows += [(source["name"], len(there), key, losses[f"loss_test_{key}"]) for key in keys]
    table = pd.DataFrame(rows, columns=["source", "windows", "key", "loss"])
    mean = table.groupby("key", as_index=False, sort=False).agg({"windows": "sum", "loss": "mean"})
    return pd.concat([table, mean.assign(source=ALL)], ignore_index=True)


def configure(arm: str, lr: float, seed: int, split_seed: int) -> PostHocConfig:
    return PostHocConfig.model_validate(
        {
            "model": "smollm2",
            "widths": [16, 8],
            "data": {"split_seed": split_seed},
            **ARMS[arm],
            "train": {"tokens": 150_000, "batch_size": 8, "beta2": 0.99, "lr": lr},
            "test_windows": 8,  # scored by source instead
            "seed": seed,
        }
    )


if __name__ == "__main__":
    main()
