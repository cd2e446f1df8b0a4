"""Does a second leaf help a trained memory? Runs scored by the nearest leaves of their prefixes.

    python -m benchmarks.soft_routing results/runs/ID ... --out benchmarks/soft_routing.csv

`mixed` is the mean of the probabilities under the two leaves: two forward passes, twice the cost of
`nearest`. `ensemble` mixes the nearest leaf with memory off, a second pass without a second leaf.
Test windows of the record, second parts, nats per token.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from benchmarks.routing_levers import nearest_leaves
from core.config import Runtime
from core.corpus.prepare import prepare_windows
from core.dataset import PADDING, Windows
from core.evaluate import SAMPLE_SEED, sample, token_losses
from core.load import Router, load_routed
from core.model import Model
from core.prepare import prepare
from core.retrieval.keys import window_keys

BATCH = 64  # windows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    rows = [score_run(folder, Runtime(results=given.results)) for folder in given.runs]
    print(pd.DataFrame(rows).to_string(index=False))
    pd.DataFrame(rows).to_csv(given.out, index=False)


def score_run(folder: Path, runtime: Runtime) -> dict[str, object]:
    model, router = load_routed(folder, runtime)
    config = model.config
    windows, first_nl, second_nl = two_paths(model, router, runtime)
    nearest, second, off, document = (
        losses(model, windows, path_nl)
        for path_nl in (first_nl, second_nl, None, windows.path_document_nl)
    )
    agreed = first_nl[:, -1] == windows.path_document_nl[:, -1]
    among_two = agreed | (second_nl[:, -1] == windows.path_document_nl[:, -1])
    found = {"nearest": nearest, "second": second, "mixed": mixed(nearest, second)}
    found |= {"ensemble": mixed(nearest, off), "off": off, "document": document}
    return {
        "run": folder.name,
        "training_key": config.tree.key,
        "seed": config.seed,
        "agreement": round(float(agreed.mean()), 4),
        "agreement_of_two": round(float(among_two.mean()), 4),
    } | {name: round(float(nll.mean()), 4) for name, nll in found.items()}


def two_paths(
    model: Model, router: Router, runtime: Runtime
) -> tuple[Windows, NDArray[np.int32], NDArray[np.int32]]:
    """The record's test windows, and the paths of the two leaves nearest to each prefix."""
    config = model.config
    test = prepare(config.data, config.tree, runtime.cache).test
    n, count = len(test.length_n), config.evaluate.test_windows
    chosen = np.random.default_rng(SAMPLE_SEED).permutation(n)[:count]
    chosen = chosen[np.argsort(-test.length_n[chosen], kind="stable")]  # as `sample` does
    split = prepare_windows(config.data, runtime.cache).split("test")
    keys = window_keys(split, config.tree, config.tree.prefix, chosen.tolist())
    vectors_nd = router.embedder.embed(keys)
    first_nl = router.tree.route(vectors_nd)
    leaf_n = nearest_leaves(router.tree, vectors_nd, first_nl[:, -1], 2)[:, 1]
    second_nl = np.stack([leaf_n // below for below in _leaves_below(router)], axis=1)
    return sample(test, count), first_nl, second_nl.astype(np.int32)


def _leaves_below(router: Router) -> list[int]:
    """Leaves under one cluster, per level."""
    clusters = router.tree.clusters
    return [clusters[-1] // level for level in clusters]


def losses(
    model: Model, windows: Windows, path_nl: NDArray[np.int32] | None
) -> NDArray[np.float32]:
    """Nats of every token of the second parts, flat, in the windows' order."""
    found = []
    for start in range(0, len(windows.length_n), BATCH):
        rows = slice(start, start + BATCH)
        length_b = windows.length_n[rows, None]
        position_t = np.arange(int(length_b.max()))
        segments_bt = np.where(position_t < length_b, 0, PADDING).astype(np.uint8)
        tokens_bt = windows.tokens_nt[rows, : len(position_t)].astype(np.int64)
        path_bl = None if path_nl is None else torch.from_numpy(path_nl[rows].astype(np.int64))
        with torch.no_grad():
            nll_bt = token_losses(
                model, torch.from_numpy(tokens_bt), torch.from_numpy(segments_bt), path_bl
            ).numpy()
        behind_bt = position_t[1:] >= windows.prefix_n[rows, None]
        found.append(nll_bt[behind_bt & (segments_bt[:, 1:] != PADDING)])
    return np.concatenate(found)


def mixed(first_t: NDArray[np.float32], second_t: NDArray[np.float32]) -> NDArray[np.float32]:
    """Nats under the mean of two probabilities."""
    return np.log(2) - np.logaddexp(-first_t, -second_t)


if __name__ == "__main__":
    main()
