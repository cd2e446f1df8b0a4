"""Figures of what memory is worth: multipliers, sizes, placement, type, tokens, facts."""

from collections.abc import Callable

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.compare import MEASURES
from analysis.figures import KEY_WORDS, log_axis, ordered_arms, seeds_and_means
from analysis.style import RC, Plot, canvas, look

BUCKETS = ("0", "1", "2-3", "4-7", "8-15", "16-63", "64+")


def multiplier_by_arm(tables: dict[tuple[str, str], pd.DataFrame]) -> Plot:
    """Dense-equivalent multipliers; `tables` by (key, measure), a panel a measure."""
    measures = list(dict.fromkeys(measure for _, measure in tables))
    rows = []
    with matplotlib.rc_context(RC):
        figure, axes = canvas(len(measures), width=3.6, height=3.4)
        for axis, measure in zip(axes, measures, strict=True):
            for key_index, key in enumerate(dict.fromkeys(key for key, _ in tables)):
                table = tables[key, measure].reset_index(drop=True)
                place = np.arange(len(table)) + 0.18 * key_index
                _interval_points(axis, place, table, KEY_WORDS[key], key_index)
                rows.append(table.assign(key=key, measure=measure))
                axis.set_xticks(np.arange(len(table)))
                axis.set_xticklabels(table["arm"] + " " + table["anchor"], rotation=60, ha="right")
            axis.axhline(1.0, color="#777777", lw=0.8)
            axis.set_yscale("log")
            axis.set_title(f"in {MEASURES[measure]}")
        axes[0].set_ylabel("dense-equivalent multiplier")
        axes[0].legend()
    return Plot(
        "multiplier_by_arm",
        "Dense-equivalent multiplier",
        "Size of the dense model with the same loss at the same tokens, over the model's own size. "
        "Bars: interval or, with two seeds, range. Points outside the dense range are hollow.",
        figure,
        pd.concat(rows, ignore_index=True),
    )


def _interval_points(
    axis: Axes, place: np.ndarray, table: pd.DataFrame, label: str, index: int
) -> None:
    style = look(index)
    for inside in (True, False):
        chosen = (table["basis"] == "interpolated").to_numpy() == inside
        own = table[chosen]
        low = np.maximum(own["multiplier"] - own["low"], 0.0)
        high = np.maximum(own["high"] - own["multiplier"], 0.0)
        axis.errorbar(
            place[chosen],
            own["multiplier"],
            yerr=np.nan_to_num(np.array([low, high])),
            fmt=style["marker"],
            color=style["color"],
            mfc=style["color"] if inside else "none",
            lw=1.0,
            capsize=2,
            label=label if inside else None,
        )


def gain_against(runs: pd.DataFrame, split: str, column: str, words: str, name: str) -> Plot:
    """Gain over the same anchor without memory, seed by seed, against a size column."""
    data = gains(runs, split)
    data = data[data[column] > 0]
    with matplotlib.rc_context(RC):
        figure, (axis,) = canvas()
        for i, (arm, own) in enumerate(data.groupby("arm", sort=True)):
            seeds_and_means(axis, own, column, "gain", str(arm), i + 1)
            means = own.groupby(column)["gain"].mean()
            style = look(i + 1)
            axis.plot(means.index, means, color=style["color"], ls=style["linestyle"])
        axis.axhline(0.0, color="#777777", lw=0.8)
        log_axis(axis)
        axis.set_xlabel(words)
        axis.set_ylabel("gain over dense at equal anchor (nats/token)")
        if len(data):
            axis.legend()
    return Plot(
        name,
        f"Gain against {words}",
        "Loss of the dense run of the same anchor and seed, minus that with memory (prefix key).",
        figure,
        data.reset_index(drop=True),
    )


def gains(runs: pd.DataFrame, split: str) -> pd.DataFrame:
    """Runs with memory, each with `gain` over the dense run of the same anchor, tokens and seed."""
    loss = f"loss_{split}_prefix"
    pair = ["anchor", "tokens", "seed"]
    dense = runs[runs["memory_type"] == "none"].groupby(pair)[loss].mean().rename("dense")
    joined = runs[runs["memory_type"] != "none"].merge(dense.reset_index(), on=pair)
    keep = ["run_id", "arm", "memory_type", "placement", *pair, "n_fetched", "n_bank"]
    keep += ["tokens_per_block_parameter"]
    return joined.assign(gain=joined["dense"] - joined[loss])[[*keep, "gain"]]


def gain_by(runs: pd.DataFrame, split: str, column: str, words: str, name: str) -> Plot:
    """Gain over dense at equal anchor by a category: placement, memory type."""
    data = gains(runs, split)
    data = data[data[column] != ""].sort_values([column, "seed"])
    with matplotlib.rc_context(RC):
        figure, (axis,) = canvas()
        names = sorted(data[column].unique())
        for i, value in enumerate(names):
            own = data.loc[data[column] == value, "gain"]
            style = look(i)
            open_marker = {"marker": style["marker"], "color": style["color"], "mfc": "none"}
            axis.plot(np.full(len(own), i), own, ls="none", **open_marker)
            axis.plot([i - 0.2, i + 0.2], [own.mean()] * 2, color=style["color"], lw=2)
        axis.axhline(0.0, color="#777777", lw=0.8)
        axis.set_xticks(range(len(names)))
        axis.set_xticklabels(names, rotation=20)
        axis.set_xlabel(words)
        axis.set_ylabel("gain over dense at equal anchor (nats/token)")
    return Plot(
        name,
        f"Gain by {words}",
        "Points are runs against the dense run of the same anchor and seed; bars are means.",
        figure,
        data.reset_index(drop=True),
    )


def recall_by_frequency(runs: pd.DataFrame, probes: pd.DataFrame) -> Plot:
    """Share of facts recalled by how often the training text states them, a panel a route."""
    known = runs.drop_duplicates("run_id")[["run_id", "arm", "anchor", "seed"]]
    joined = probes.merge(known, on="run_id")
    data = joined.groupby(["route", "arm", "seed", "bucket"], as_index=False).agg(
        exact=("exact", "mean"), facts=("exact", "size")
    )
    routes, arms = sorted(data["route"].unique()), ordered_arms(runs)
    with matplotlib.rc_context(RC):
        figure, axes = canvas(max(1, len(routes)), width=3.7)
        for axis, route in zip(axes, routes, strict=False):
            for i, arm in enumerate(arms):
                own = data[(data["route"] == route) & (data["arm"] == arm)]
                means = own.groupby("bucket")["exact"].mean().reindex(BUCKETS).dropna()
                place = [BUCKETS.index(bucket) for bucket in means.index]
                axis.plot(place, means, label=arm, **look(i))
            axis.set_xticks(range(len(BUCKETS)))
            axis.set_xticklabels(BUCKETS)
            axis.set_xlabel("times stated in the training text")
            axis.set_title(f"path: {route}")
        axes[0].set_ylabel("share of facts recalled")
        axes[0].legend()
    return Plot(
        "recall_by_frequency",
        "Recall by frequency",
        "Greedy generation names the right answer. The oracle path is an upper bound, which no "
        "honest use has.",
        figure,
        data,
    )


def blocking_curve(runs: pd.DataFrame, blocking: pd.DataFrame) -> Plot:
    """Loss against the share of the bank that is blocked at evaluation, per arm."""
    known = runs.drop_duplicates("run_id")[["run_id", "arm", "seed"]]
    data = blocking.merge(known, on="run_id").sort_values(["arm", "seed", "blocked"])
    with matplotlib.rc_context(RC):
        figure, (axis,) = canvas()
        for i, arm in enumerate(ordered_arms(runs)):
            means = data[data["arm"] == arm].groupby("blocked")["loss"].mean()
            if len(means):
                axis.plot(means.index, means, label=arm, **look(i))
        axis.set_xlabel("share of the bank blocked")
        axis.set_ylabel("test loss (nats/token)")
        axis.legend()
    return Plot("blocking_curve", "Blocking curve", "Means over seeds.", figure, data)


Drawn = Callable[[pd.DataFrame, str], Plot]


def memory_plots(runs: pd.DataFrame, split: str) -> list[Plot]:
    """The figures for which the grid varies what they show."""
    memory = runs[runs["memory_type"] != "none"]
    if not len(gains(runs, split)):
        return []
    plots = []
    for column, words, name in (
        ("n_fetched", "fetched memory M (parameters)", "gain_fetched"),
        ("n_bank", "bank W (parameters)", "gain_bank"),
        ("tokens_per_block_parameter", "training tokens per block parameter", "gain_tokens"),
    ):
        if (memory[column] > 0).any():
            plots.append(gain_against(runs, split, column, words, name))
    for column, words, name in (
        ("placement", "placement", "gain_placement"),
        ("memory_type", "memory type", "gain_type"),
    ):
        if memory.loc[memory[column] != "", column].nunique() > 1:
            plots.append(gain_by(runs, split, column, words, name))
    return plots
