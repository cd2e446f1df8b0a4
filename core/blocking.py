"""Switch off a part of the bank at evaluation: what is forgotten, what is kept.

A part is a set of leaves; a block of an upper level stays in use while a leaf under it is open. A
text whose leaf is blocked goes to the best remaining cluster: the greedy descent goes on, past
clusters without an open leaf. Nothing is retrained. The paper blocks what matches each prompt best
(arXiv 2510.02375, fig. 6b): `block_best` does so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.config import Runtime, load_config
from core.corpus.facts import Probe, load_probes
from core.corpus.prepare import prepare_windows
from core.dataset import Windows
from core.errors import InputError
from core.evaluate import score_windows
from core.generate import Codec
from core.identity import run_id
from core.load import Router, load_routed
from core.model import Model
from core.prepare import prepare
from core.probes import Answer, Asked, ask, choose
from core.retrieval.keys import window_keys
from core.retrieval.tree import ClusterTree

Vectors = NDArray[np.float32]
Leaves = NDArray[np.bool_]  # [n, leaves], true where a leaf is open to a text


@dataclass(frozen=True)
class Blocking:
    """What is switched off, by name; `open_leaves` says what each text [n, d] may still use."""

    name: str
    open_leaves: Callable[[ClusterTree, Vectors], Leaves]


def block_subtree(level: int, cluster: int) -> Blocking:
    """A cluster and all under it, for every text; at the last level this is one path.

    Levels count from 1. Raises InputError, when it is applied, if the tree has no such cluster.
    """

    def open_leaves(tree: ClusterTree, vectors_nd: Vectors) -> Leaves:
        if not (1 <= level <= len(tree.clusters) and 0 <= cluster < tree.clusters[level - 1]):
            raise InputError(
                f"blocking level {level}, cluster {cluster}: the tree has clusters "
                f"{tree.clusters} per level; give a level from 1 and a cluster from 0"
            )
        return np.tile(_leaf_parents(tree, level) != cluster, (len(vectors_nd), 1))

    return Blocking(f"level {level} cluster {cluster}", open_leaves)


def block_best(k: int) -> Blocking:
    """The 1/k of the bank that matches each text best: where the router would go first, and next.

    Whole clusters are blocked, of the first level whose count k divides. Raises InputError, when it
    is applied, if there is none.
    """

    def open_leaves(tree: ClusterTree, vectors_nd: Vectors) -> Leaves:
        level = next((i for i, n in enumerate(tree.clusters, 1) if k > 1 and n % k == 0), None)
        if level is None:
            raise InputError(
                f"blocking 1/{k} of the bank: allowed is a k above 1 that divides the clusters of "
                f"a level, which are {tree.clusters}; choose another k"
            )
        parents = _leaf_parents(tree, level)
        open_nc = np.ones((len(vectors_nd), tree.clusters[-1]), bool)
        for _ in range(tree.clusters[level - 1] // k):
            best_n = route_open(tree, vectors_nd, open_nc)[:, level - 1]
            open_nc &= parents != best_n[:, None]
        return open_nc

    return Blocking(f"best 1/{k}", open_leaves)


def route_open(tree: ClusterTree, vectors_nd: Vectors, open_nc: Leaves) -> NDArray[np.int32]:
    """Paths int32 [n, levels]: at each level the nearest child (L2) that has an open leaf.

    With every leaf open this is `ClusterTree.route`. Every text must have an open leaf.
    """
    path_nl = np.empty((len(vectors_nd), len(tree.levels)), np.int32)
    node_n = np.zeros(len(vectors_nd), np.int64)
    for level, centroids_pkd in enumerate(tree.levels):
        children = centroids_pkd.shape[1]
        open_npkc = open_nc.reshape(len(open_nc), len(centroids_pkd), children, -1)
        reachable_npk = np.logical_or.reduce(open_npkc, axis=3)
        child_nkd = centroids_pkd[node_n]
        distance_nk = 0.5 * (child_nkd**2).sum(2) - np.einsum("nd,nkd->nk", vectors_nd, child_nkd)
        distance_nk[~reachable_npk[np.arange(len(node_n)), node_n]] = np.inf
        node_n = node_n * children + distance_nk.argmin(axis=1)
        path_nl[:, level] = node_n
    return path_nl


def _leaf_parents(tree: ClusterTree, level: int) -> NDArray[np.int64]:
    """The cluster at `level` (from 1) above each leaf: [leaves]."""
    below = prod(centroids.shape[1] for centroids in tree.levels[level:])
    return np.arange(tree.clusters[-1]) // below


def block_run(
    folder: Path, runtime: Runtime, blocking: Blocking, probes: Sequence[Probe] | None = None
) -> pd.DataFrame:
    """Every probe of the run of `folder`, routed by its prompt, before and after blocking.

    One row a fact, with `moved` (its path was blocked), and exact, rank and logprob of both.
    Raises InputError where the run's memory has no paths, and as `load_routed` does.
    """
    model, router = _routed_run(folder, runtime)
    codec = Codec.of_run(model.config, runtime.cache)
    rows = []
    for probe in load_probes(runtime.cache) if probes is None else probes:
        asked = choose(probe, model.config.data, runtime.cache)
        texts = [probe.prompt.format(a.fact.subject) for a in asked]
        before_nl, after_nl = _paths(router, blocking, texts)
        facts = [a.fact for a in asked]
        before = ask(model, codec, probe, facts, before_nl)
        moved = np.flatnonzero((before_nl != after_nl).any(axis=1))
        asked_again = ask(model, codec, probe, [facts[i] for i in moved], after_nl[moved])
        again = dict(zip(moved.tolist(), asked_again, strict=True))
        for i, (fact, answer) in enumerate(zip(asked, before, strict=True)):
            row = {"run_id": run_id(model.config), "blocked": blocking.name, "probe": probe.name}
            rows.append(row | _row(fact, answer, again.get(i)))
    return pd.DataFrame(rows)


def _row(asked: Asked, before: Answer, after: Answer | None) -> dict[str, object]:
    row: dict[str, object] = {
        "subject": asked.fact.subject,
        "answer": asked.fact.answer,
        "frequency": asked.frequency,
        "bucket": asked.bucket,
        "moved": after is not None,
    }
    for name in Answer.__dataclass_fields__:
        row[f"{name}_before"] = getattr(before, name)
        row[f"{name}_after"] = getattr(after or before, name)
    return row


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """Per blocking, probe and bucket: facts asked, known before (the right answer ranked first),
    and how many of the known are forgotten (not first any more) and kept."""
    known = frame["rank_before"] == 1
    counted = frame.assign(
        asked=1,
        known=known,
        forgotten=known & (frame["rank_after"] > 1),
        kept=known & (frame["rank_after"] == 1),
    )
    columns = ["asked", "known", "forgotten", "kept"]
    return counted.groupby(["blocked", "probe", "bucket"])[columns].sum().reset_index()


def blocked_losses(folder: Path, runtime: Runtime, blocking: Blocking) -> pd.DataFrame:
    """Test loss (nats/token, second parts, prefix key) before and after blocking.

    Two rows: `inside`, the windows whose path was blocked, and `outside`, all others; `windows`
    says how many there are. Raises as `block_run` does.
    """
    model, router = _routed_run(folder, runtime)
    data, tree = model.config.data, model.config.tree
    dataset = prepare(data, tree, runtime.cache, runtime.device)
    test = prepare_windows(data, runtime.cache).split("test")
    texts = list(window_keys(test, tree, tree.prefix))
    before_nl, after_nl = _paths(router, blocking, texts)
    moved_n = (before_nl != after_nl).any(axis=1)
    rows = []
    for part, chosen_n in (("inside", moved_n), ("outside", ~moved_n)):
        windows = _select(dataset.test, chosen_n)
        losses = [
            score_windows(model, windows, path_nl[chosen_n], dataset.token_bytes_v)[0].loss
            if chosen_n.any()
            else float("nan")
            for path_nl in (before_nl, after_nl)
        ]
        rows.append((blocking.name, part, int(chosen_n.sum()), *losses))
    return pd.DataFrame(rows, columns=["blocked", "part", "windows", "loss_before", "loss_after"])


def _routed_run(folder: Path, runtime: Runtime) -> tuple[Model, Router]:
    kind = load_config(folder / "config.yaml").memory.type
    if kind in ("none", "generic"):
        raise InputError(
            f"{folder}: memory.type {kind} has no paths to block; give a run whose memory is "
            "addressed by the tree"
        )
    return load_routed(folder, runtime)


def _paths(
    router: Router, blocking: Blocking, texts: Sequence[str]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Paths [n, levels] of the texts with the whole bank, and with what blocking leaves."""
    vectors_nd = router.embedder.embed(texts)
    open_nc = blocking.open_leaves(router.tree, vectors_nd)
    return router.tree.route(vectors_nd), route_open(router.tree, vectors_nd, open_nc)


def _select(windows: Windows, chosen_n: NDArray[np.bool_]) -> Windows:
    names = windows.__dataclass_fields__
    return replace(windows, **{name: getattr(windows, name)[chosen_n] for name in names})
