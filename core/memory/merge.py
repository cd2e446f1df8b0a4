"""Banks of runs that trained parts of the tree on one frozen anchor, merged to one.

On a frozen anchor the subtrees of level 1 share no parameter and, with clipping by row, no update:
each run leaves the blocks of the other parts as they began. So the merged bank is the one that a
single run over the same batches would have trained, to rounding. Source of the idea: arXiv
2510.02375, app. A (16 independent jobs).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from core.accounting import tree_clusters
from core.checkpoint import load_weights, save_weights, saved_config
from core.config import RunConfig
from core.errors import InputError


def merge_banks(parts: Sequence[Path], target: Path) -> None:
    """Write `target` from weight files that share out the clusters of level 1.

    Raises InputError where configs differ in more than tree_part and the parts overlap or leave a
    cluster out.
    """
    configs = [saved_config(path) for path in parts]
    whole = _whole(configs[0])
    for path, config in zip(parts, configs, strict=True):
        if _whole(config) != whole:
            raise InputError(
                f"{path}: its config differs from {parts[0]} in more than train.tree_part; "
                "merge parts of one run"
            )
    given = sorted(cluster for config in configs for cluster in config.train.tree_part)
    if given != list(range(whole.tree.branching[0])):
        raise InputError(
            f"the parts hold clusters {given} of level 1, each of 0 to "
            f"{whole.tree.branching[0] - 1} is needed once; add or remove parts"
        )
    merged = load_weights(parts[0])
    for path, config in zip(parts[1:], configs[1:], strict=True):
        _take(merged, load_weights(path), config)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_weights(target, merged, {"config": json.dumps(whole.model_dump(mode="json"))})


def _take(merged: dict[str, Tensor], part: dict[str, Tensor], config: RunConfig) -> None:
    """The rows of a part's subtrees into `merged`, in place."""
    own = torch.tensor(config.train.tree_part)
    clusters = tree_clusters(config.tree.branching)
    for name, rows in part.items():
        if name.startswith("bank."):
            level = int(name.split(".")[1])
            subtree_n = torch.arange(len(rows)) // (clusters[level] // clusters[0])
            mine_n = torch.isin(subtree_n, own)
            merged[name][mine_n] = rows[mine_n]


def _whole(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"train": config.train.model_copy(update={"tree_part": ()})})
