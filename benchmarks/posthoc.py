"""What is a bank worth to a pretrained model that stays as it is, on text of its own kinds?

    python benchmarks/posthoc.py --results results --out results/reference/posthoc

SmolLM2-135M-Instruct in four bits, frozen; ffn blocks in its 30 layers are trained on the default
corpus. Arms: a tree of MiniLM's word vectors, training windows routed by their prefix, and a random
tree (paths by the hash of a document's id), whose bank learns the text but no topics. Rates are
chosen on another split of the text (`--tune`: rates.csv), seeds are paired between arms.

losses.csv: a row a run, source of the text and key, in nats per token of the model's tokenizer on
second parts of windows; `off` is the model as it was, lowest where it knows the text by heart.
differences.csv: minus `off`, and words minus random, with intervals over paired seeds. What is
finished in RESULTS is not trained again.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from analysis.seeds import pooled, smallest_detectable, t_summary
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

TREES: dict[str, dict[str, object]] = {
    "words": {"embedder": "minilm-words", "key": "prefix"},
    "random": {"embedder": "random"},
}
RATES = (1e-3, 4e-3, 1.6e-2)
TUNING_SPLIT, SPLIT = 0, 1  # data.split_seed
WINDOWS = 64  # scored of each source
ALL = "all"
KEYS = ("prefix", "document", "off")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--tune", action="store_true", help="choose the rates, on the other split")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    given = parser.parse_args()
    runtime = Runtime(results=given.results)
    if given.tune:
        runs = [score(t, r, 0, TUNING_SPLIT, runtime) for t in TREES for r in RATES]
        write_csv(pd.concat(runs, ignore_index=True), given.out / "rates.csv")
        return
    best = best_rates(pd.read_csv(given.out / "rates.csv"))
    runs = [score(t, best[t], s, SPLIT, runtime) for s in given.seeds for t in TREES]
    losses = pd.concat(runs, ignore_index=True)
    write_csv(losses, given.out / "losses.csv")
    table = differences(losses)
    write_csv(table, given.out / "differences.csv")
    print(table.to_string(index=False, float_format="%.4f"))


def best_rates(losses: pd.DataFrame) -> dict[str, float]:
    """Of each tree, by the loss under the prefix key over all sources."""
    own = losses[(losses["source"] == ALL) & (losses["key"] == "prefix")]
    return {str(tree): float(t.loc[t["loss"].idxmin(), "lr"]) for tree, t in own.groupby("tree")}


def score(tree: str, lr: float, seed: int, split_seed: int, runtime: Runtime) -> pd.DataFrame:
    """A row a source and key; trained first where it is not finished."""
    config = configure(tree, lr, seed, split_seed)
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
        losses = posthoc_losses(subject.model, config, runtime, split, subject.router, there)
        rows += [(source["name"], len(there), key, losses[f"loss_test_{key}"]) for key in KEYS]
    table = pd.DataFrame(rows, columns=["source", "windows", "key", "loss"])
    mean = table.groupby("key", as_index=False, sort=False).agg({"windows": "sum", "loss": "mean"})
    table = pd.concat([table, mean.assign(source=ALL)], ignore_index=True)
    print(
        f"{tree} {lr:g} seed {seed}: {mean.set_index('key')['loss'].round(4).to_dict()}", flush=True
    )
    return table.assign(run_id=folder.name, tree=tree, lr=lr, seed=seed, torch=torch.__version__)


def configure(tree: str, lr: float, seed: int, split_seed: int) -> PostHocConfig:
    return PostHocConfig.model_validate(
        {
            "model": "smollm2",
            "widths": [16, 8],
            "data": {"split_seed": split_seed},
            "tree": TREES[tree],
            "train": {"tokens": 150_000, "batch_size": 8, "beta2": 0.99, "lr": lr},
            "test_windows": 8,  # scored by source instead
            "seed": seed,
        }
    )


def differences(losses: pd.DataFrame) -> pd.DataFrame:
    """Each tree minus the model as it was, and words minus random, by source and key."""
    wide = losses.pivot_table(index=["source", "seed"], columns=["tree", "key"], values="loss")
    pairs = [(tree, key, tree, "off") for tree in TREES for key in ("prefix", "document")]
    pairs += [("words", key, "random", key) for key in ("prefix", "document")]
    rows = []
    for tree, key, other, other_key in pairs:
        by_source = (wide[tree, key] - wide[other, other_key]).groupby("source", sort=False)
        values = {str(source): own.to_numpy(dtype=float) for source, own in by_source}
        spread, free = pooled(list(values.values()))
        against = "off" if other_key == "off" else other
        rows += [
            (tree, against, key, source, float(own.mean()), *t_summary(own), len(own))
            + (smallest_detectable(spread, len(own), free),)
            for source, own in values.items()
        ]
    columns = ["tree", "against", "key", "source", "difference", "low", "high", "interval"]
    return pd.DataFrame(rows, columns=[*columns, "seeds", "detectable"])


if __name__ == "__main__":
    main()
