"""Figures of what memory is worth: multipliers, facts by frequency, blocking."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.drawing import (
    SEEDS_SHOWN,
    categories,
    label,
    ordered_arms,
    seeds_and_means,
    told_apart,
)
from analysis.facts import ANSWER_LOSS, by_route, with_losses
from analysis.figures import KEY_WORDS
from analysis.law import Floats
from analysis.multiplier import MEASURES
from analysis.style import Plot, canvas, look

BUCKETS = ("0", "1", "2-3", "4-7", "8-15", "16-63", "64+")
# Labels in a decade of a logarithmic axis whose ends lie no further apart than a ratio.
STEPS = (
    (2.5, (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)),
    (10.0, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)),
    (np.inf, (1.0, 2.0, 5.0)),
)
ORACLE_SHOWN = (
    "Mean over facts and over the anchors that hold memory. The oracle path is an upper bound, "
    "which no honest use has."
)


def multiplier_by_arm(tables: dict[tuple[str, str], pd.DataFrame]) -> Plot:
    """Dense-equivalent multipliers at one budget; `tables` by (key, measure), a panel a measure."""
    keys, measures = (list(dict.fromkeys(names)) for names in zip(*tables, strict=True))
    rows = []
    height = 1.4 + 0.22 * max(len(table) for table in tables.values())
    with canvas(len(measures), width=3.9, height=height) as (figure, axes):
        for axis, measure in zip(axes, measures, strict=True):
            shown = [t.reset_index(drop=True) for (_, name), t in tables.items() if name == measure]
            for index, (key, table) in enumerate(zip(keys, shown, strict=True)):
                _interval_points(axis, table, KEY_WORDS[key], index)
                rows.append(table.assign(key=key, measure=measure))
            table = shown[0]
            axis.axvline(1.0, color="#777777", lw=0.8)
            names = told_apart(table["arm"] + " " + table["anchor"], table)
            axis.set_yticks(np.arange(len(table)), list(names) if axis is axes[0] else [])
            axis.set_ylim(len(table) - 0.3, -0.7)
            _plain_log(axis)
            _open_ends(axis, shown)
            label(axis, f"in {MEASURES[measure]}", legend=axis is axes[0])
    caption = (
        "Size of the dense model with the same loss at the same tokens, over the model's own "
        "size. Bars: 95 % interval over seeds or, with two, their range; dotted where dense models "
        "set no limit. Hollow: extrapolated by the dense fit. A point that is missing has no dense "
        "model with its loss."
    )
    data = pd.concat(rows, ignore_index=True)
    return Plot("multiplier_by_arm", "Dense-equivalent multiplier", caption, figure, data)


def _plain_log(axis: Axes) -> None:
    """A logarithmic x axis about 1, labelled in plain numbers."""
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    steps = next(own for ratio, own in STEPS if high < ratio * low)
    axis.xaxis.set_major_locator(LogLocator(subs=steps))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _interval_points(axis: Axes, table: pd.DataFrame, words: str, index: int) -> None:
    """A key's points, with their bars; those that were extrapolated are hollow."""
    style, named = look(index), False
    place = _places(table, index)
    inside = (table["basis"] == "interpolated").to_numpy()
    for chosen, fill in ((inside, style["color"]), (~inside, "none")):
        own = table[chosen]
        if not own["multiplier"].notna().any():
            continue
        below = np.maximum(own["multiplier"] - own["low"], 0.0)
        above = np.maximum(own["high"] - own["multiplier"], 0.0)
        bars = np.nan_to_num(np.array([below, above]))
        marks: Any = {"fmt": style["marker"], "color": style["color"], "mfc": fill, "ms": 4}
        axis.errorbar(
            own["multiplier"], place[chosen], xerr=bars, lw=1.0, capsize=2, **marks,
            label=None if named else words,
        )  # fmt: skip
        named = True


def _open_ends(axis: Axes, shown: list[pd.DataFrame]) -> None:
    """A dotted line to the edge where an interval has no end on that side."""
    edges = axis.get_xlim()
    for index, table in enumerate(shown):
        known = table["multiplier"].notna() & ~table["interval"].str.startswith("none")
        for end, edge in zip(("low", "high"), edges, strict=True):
            open_n = (known & table[end].isna()).to_numpy()
            lines: Any = {"color": look(index)["color"], "ls": ":", "lw": 1.0}
            axis.hlines(_places(table, index)[open_n], edge, table["multiplier"][open_n], **lines)
    axis.set_xlim(edges)


def _places(table: pd.DataFrame, index: int) -> Floats:
    """Along the y axis, of the rows of the index-th key."""
    return np.arange(len(table), dtype=np.float64) + (0.25 * index - 0.12)


def recall_by_frequency(runs: pd.DataFrame, probes: pd.DataFrame) -> Plot:
    """Share of facts recalled by how often the training text states them, a panel a path."""
    figure, data = _by_frequency(runs, probes, "exact", "share of facts recalled")
    for axis in figure.axes:
        axis.set_ylim(-0.04, 1.04)
    caption = f"Greedy generation names the right answer. {ORACLE_SHOWN} {SEEDS_SHOWN}"
    return Plot("recall_by_frequency", "Recall by frequency", caption, figure, data)


def answer_loss_by_frequency(runs: pd.DataFrame, probes: pd.DataFrame) -> Plot:
    """Loss of the right answer by how often the training text states the fact, a panel a path."""
    figure, data = _by_frequency(runs, with_losses(probes), ANSWER_LOSS, ANSWER_LOSS)
    caption = f"Minus the log-probability of the right answer. {ORACLE_SHOWN} {SEEDS_SHOWN}"
    return Plot("answer_loss_by_frequency", "Loss of the answer", caption, figure, data)


def _by_frequency(
    runs: pd.DataFrame, probes: pd.DataFrame, measure: str, words: str
) -> tuple[Figure, pd.DataFrame]:
    known = runs.drop_duplicates("run_id")[["run_id", "arm", "anchor", "seed", "memory_type"]]
    joined = by_route(probes).merge(known, on="run_id")
    augmented = joined["memory_type"] != "none"
    if augmented.any():  # all arms at the same anchors
        joined = joined[joined["anchor"].isin(joined.loc[augmented, "anchor"])]
    data = joined.groupby(["route", "arm", "seed", "bucket"], as_index=False).agg(
        mean=(measure, "mean"), facts=(measure, "size")
    )
    data["place"] = data["bucket"].map(BUCKETS.index)
    arms = [arm for arm in ordered_arms(runs) if (data["arm"] == arm).any()]
    routes = sorted(data["route"].unique(), key=lambda route: (route != "prompt", route))
    with canvas(len(routes), width=4.4, height=3.8, columns=3) as (figure, axes):
        for axis, route in zip(axes, routes, strict=True):
            for i, arm in enumerate(arms):
                own = data[(data["route"] == route) & (data["arm"] == arm)]
                if len(own):
                    beside = own.assign(place=own["place"] + 0.07 * i)
                    seeds_and_means(axis, beside, "place", "mean", arm, i, line=True)
            categories(axis, list(BUCKETS))
            times = "times stated in the training text"
            label(axis, times, words, f"path: {route}", axis is axes[0])
    return figure, data


def blocking_curve(runs: pd.DataFrame, blocking: pd.DataFrame) -> Plot:
    """Loss and facts kept against the share of the bank that is blocked, best matches first."""
    known = runs.drop_duplicates("run_id")[["run_id", "arm", "anchor", "seed"]]
    nested = blocking["blocking"].str.match(r"^(nothing|best 1/\d+)$")
    data = (
        blocking[nested]
        .merge(known, on="run_id")
        .assign(kept_share=lambda t: (t["kept"] / t["known"]).fillna(1.0))
    )
    panels = (("loss", "test loss (nats/token)"), ("kept_share", "share of known facts kept"))
    with canvas(2, width=4.8, height=3.6) as (figure, axes):
        for axis, (column, words) in zip(axes, panels, strict=True):
            for i, ((arm, anchor), own) in enumerate(data.groupby(["arm", "anchor"])):
                seeds_and_means(axis, own, "blocked", column, f"{arm} {anchor}", i, line=True)
            label(axis, "share of the bank blocked", words, legend=axis is axes[0])
    caption = (
        "What matches each text best is blocked first; the text goes to the best cluster left, "
        f"and nothing is retrained. {SEEDS_SHOWN}"
    )
    return Plot("blocking_curve", "Blocking curve", caption, figure, data)
