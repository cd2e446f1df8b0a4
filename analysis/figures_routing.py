"""What a tree is worth: routed memories against generic ones, by how well a prefix is routed."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.comparisons import GENERIC, RANDOM, arms_of
from analysis.drawing import label, ordered_arms, zero
from analysis.multiplier import PACKING
from analysis.paired import paired_differences
from analysis.style import Plot, canvas, look

ALIKE = ["training", "placement", "n_fetched"]  # in both of a pair, beside the packing
APART = 0.01  # between series at one tree, of the span of agreement


def routing_differences(runs: pd.DataFrame, split: str) -> pd.DataFrame:
    """Loss of each routed arm minus that of the generic arm that its own tree packed, of as many of
    the same blocks in the same layers; prefix key.

    Columns of `paired_differences`, PACKING and agreement: the share of test windows whose prefix
    reaches their document's leaf, NaN for a random tree, where it is 1 by construction.
    """
    blocks = runs["memory_block"].where(runs["memory_type"] == GENERIC, runs["memory_type"])
    tables = []
    for (*tree, _, _, _, _), own in runs.assign(block=blocks).groupby([*PACKING, *ALIKE, "block"]):
        of_tree: Any = dict(zip(PACKING, tree, strict=True))
        generics = arms_of(own, GENERIC)
        known = own["agreement_leaf"].where(own["embedder"] != RANDOM).max()
        tables += [
            paired_differences(own, arm, generic, f"loss_{split}_prefix").assign(
                **of_tree, agreement=known
            )
            for generic in generics
            for arm in ordered_arms(own)
            if arm not in generics
        ]
    found = [table for table in tables if len(table)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame({"agreement": []})


def difference_by_agreement(data: pd.DataFrame) -> Plot:
    """Of `routing_differences`, against agreement; a random tree as a line, for it has none."""
    by = ["memory_type", "anchor", *_training_keys(data)]
    series = data.sort_values("n_anchor", kind="stable").groupby(by, sort=False)
    apart = APART * float(np.ptp(data["agreement"].dropna()))
    with canvas(width=6.4, height=5.0) as (figure, (axis,)):
        for i, ((kind, anchor, *training_key), own) in enumerate(series):
            routed = own["agreement"].notna()
            words = ", ".join([f"{kind} {anchor}", *(f"trained by {key}" for key in training_key)])
            _points(axis, own[routed], i * apart, words, i)
            _lines(axis, own[~routed], f"{kind} {anchor}, random tree", i)
        zero(axis)
        _name_trees(axis, data[data["agreement"].notna()])
        words = "share of test windows whose prefix reaches their document's leaf"
        label(axis, words, "routed minus generic (nats/token)")
    caption = (
        "Test loss of a routed memory minus that of a generic one of its size whose text the same "
        "tree packed, prefix key: below 0 the routed one is better. Bars: 95 % interval over "
        "paired seeds or, with two, their range; where points share a tree all but the first are "
        "moved to the right. Lines, with the same as bands: a random tree. There a prefix reaches "
        "its document's leaf by construction, so it has no place along the axis."
    )
    title = "Routed minus generic by agreement of prefix and document"
    return Plot("difference_by_agreement", title, caption, figure, data)


def _points(axis: Axes, own: pd.DataFrame, aside: float, words: str, index: int) -> None:
    style = look(index) | {"linestyle": "none"}
    bars = np.abs(own[["low", "high"]].to_numpy(dtype=float).T - own["difference"].to_numpy())
    marks: Any = {"capsize": 2, "elinewidth": 1.0, "label": words, **style}
    axis.errorbar(own["agreement"] + aside, own["difference"], bars, **marks)


def _lines(axis: Axes, own: pd.DataFrame, words: str, index: int) -> None:
    style = look(index) | {"linestyle": look(index + 1)["linestyle"]}  # the line at 0 is solid
    for difference, low, high in own[["difference", "low", "high"]].to_numpy(dtype=float):
        axis.axhline(difference, label=words, color=style["color"], ls=style["linestyle"])
        axis.axhspan(low, high, color=style["color"], alpha=0.1, lw=0)


def _training_keys(data: pd.DataFrame) -> list[str]:
    """Its column, where trees have more than one: their points share a place and are series."""
    routed = data[data["agreement"].notna()]
    return ["training_key"] if routed["training_key"].nunique() > 1 else []


def _name_trees(axis: Axes, data: pd.DataFrame) -> None:
    """Embedder above the points; training key or branching too, where that tells what they are."""
    series = _training_keys(data)
    trees = data.drop_duplicates([n for n in (*PACKING, "agreement") if n not in series])
    names = trees["embedder"] if series else trees["embedder"] + ", " + trees["training_key"]
    if trees["branching"].nunique() > 1:
        names += ", " + trees["branching"]
    above = axis.secondary_xaxis("top")
    above.set_xticks(trees["agreement"].to_numpy(), list(names), rotation=70, ha="left")
