"""Figures of what memory gains over dense, by its sizes, its placement, its type and its tokens."""

import itertools
from collections.abc import Callable
from typing import Any

import pandas as pd

from analysis.drawing import (
    SEEDS_SHOWN,
    categories,
    label,
    log_axis,
    ordered_arms,
    seeds_and_means,
    zero,
)
from analysis.multiplier import TEXT
from analysis.runs import near
from analysis.style import Plot, canvas, count

# Sizes that a gain is drawn against: what stays along a line, and how its label says so.
KEPT: dict[str, tuple[str, Callable[[Any], str]]] = {
    "n_fetched": ("branching", lambda tree: f"tree {tree}"),
    "n_bank": ("n_fetched", lambda size: f"M {count(size)}"),
    "tokens_per_block_parameter": ("n_bank", lambda size: f"W {count(size)}"),
}
GAIN = "gain over dense (nats/token)"
GAIN_SHOWN = (
    "Loss of the dense run of the same layers x width, tokens and seed, minus that with memory."
)


def gain_against(runs: pd.DataFrame, split: str, column: str, words: str, name: str) -> Plot:
    """Gain over dense against a size column, a panel an anchor, a line an arm; several where the
    arm has several settings of what KEPT names.

    Anchors at which no arm varies the size are left out, unless there are no others: then all
    stand in one panel.
    """
    data, arms = gains(runs, split), ordered_arms(runs)
    data = data[data[column] > 0]
    varied = data.groupby(["anchor", "arm"])[column].nunique().groupby("anchor").max() > 1
    panels = [(f"anchor {a}", data[data["anchor"] == a]) for a in varied.index[varied]]
    panels = panels or [("all anchors", data)]
    with canvas(len(panels), width=5.0, height=3.8, columns=2) as (figure, axes):
        for axis, (title, here) in zip(axes, panels, strict=True):
            more = itertools.count(len(arms))  # looks of an arm's other lines
            for arm, points in here.groupby("arm", sort=True):
                for number, (said, own) in enumerate(_lines(points, str(arm), column)):
                    line = bool(varied.any()) and own[column].nunique() > 1
                    index = next(more) if number else arms.index(str(arm))
                    seeds_and_means(axis, own, column, "gain", said, index, line)
            zero(axis)
            log_axis(axis)
            label(axis, words, GAIN, title)
    caption = f"{GAIN_SHOWN} {SEEDS_SHOWN} Prefix key."
    return Plot(name, f"Gain against {words}", caption, figure, data.reset_index(drop=True))


def _lines(points: pd.DataFrame, arm: str, column: str) -> list[tuple[str, pd.DataFrame]]:
    """An arm's lines and their names: one, unless the size varies at one setting of several."""
    kept, words = KEPT[column]
    parts = [(f"{arm}, {words(at)}", own) for at, own in points.groupby(kept, sort=True)]
    varied = any(own[column].nunique() > 1 for _, own in parts)
    return parts if len(parts) > 1 and varied else [(arm, points)]


def gains(runs: pd.DataFrame, split: str) -> pd.DataFrame:
    """Runs with memory, each with `gain` over the dense run of as many layers of that width, tokens
    and seed; its FFN is wider where the memory is cut out of the anchor.
    """
    loss = f"loss_{split}_prefix"
    pair = ["anchor", *TEXT, "seed"]
    dense = runs[runs["memory_type"] == "none"].groupby(pair)[loss].mean().rename("dense")
    joined = runs[runs["memory_type"] != "none"].merge(dense.reset_index(), on=pair)
    keep = ["run_id", "arm", "memory_type", "placement", *pair, "n_fetched", "n_bank", "branching"]
    keep += ["tokens_per_block_parameter"]
    return joined.assign(gain=joined["dense"] - joined[loss])[[*keep, "gain"]]


def gain_by(runs: pd.DataFrame, split: str, column: str, words: str, name: str) -> Plot:
    """Gain over dense by a category: placement, memory type."""
    data = gains(comparable(runs, column), split)
    names = sorted(data[column].unique())
    with canvas(width=5.4, height=3.6) as (figure, (axis,)):
        for i, (anchor, own) in enumerate(data.groupby("anchor", sort=True)):
            place = [names.index(value) + 0.12 * i for value in own[column]]
            seeds_and_means(axis, own.assign(place=place), "place", "gain", str(anchor), i)
        zero(axis)
        categories(axis, names)
        label(axis, words, GAIN)
    caption = f"{GAIN_SHOWN} {SEEDS_SHOWN} Prefix key, at equal anchor and tokens."
    return Plot(name, f"Gain by {words}", caption, figure, data.reset_index(drop=True))


def comparable(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    """Dense runs, and those with memory that vary `column` at equal anchor, tokens and M (to 10 %).

    Of routed memories, only those with the commonest bank per fetched parameter, on a tree of
    meaning.
    """
    dense = runs["memory_type"] == "none"
    memory = runs[~dense & (runs["embedder"] != "random") & (runs[column] != "")]
    blocks = near(memory["n_bank"] / memory["n_fetched"], 1.1)
    routed = memory["memory_type"] != "generic"
    memory = memory[~routed | blocks.isin(blocks[routed].mode().head(1))]
    other = "memory_type" if column == "placement" else "placement"
    alike = memory.assign(size=near(memory["n_fetched"], 1.1))
    several = alike.groupby(["anchor", "tokens", "size", other])[column].transform("nunique") > 1
    return pd.concat([runs[dense], memory[several]])
