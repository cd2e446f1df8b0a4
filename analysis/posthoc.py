"""A bank on a frozen pretrained model, as benchmarks/posthoc.py and posthoc_facts.py left it:
differences, paired over seeds, and their figures.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.drawing import categories, label, zero
from analysis.law import Floats
from analysis.seeds import pooled, smallest_detectable, t_summary
from analysis.style import Plot, canvas, look

FOLDER = "posthoc"
POINTS = {"differences": "source", "fact_differences": "probe"}  # what stands for an anchor
# Arms: two trees, one block for all text, and the model as it was.
WORDS, RANDOM, GENERIC, NONE = "words", "random", "generic", "none"
STATED = "stated"  # the bucket of all facts that the text states
SHOWN = (
    "Bars: 95 % interval over paired seeds or, with two, their range. words: a tree of word "
    "vectors. random: paths are a hash of the document, so the bank learns the text, but no "
    "topics. generic: one block of the fetched size, for all text."
)


def differences(
    rows: pd.DataFrame, by: Sequence[str] = ("source",), way: str = "key", measure: str = "loss"
) -> pd.DataFrame:
    """`measure` of each arm minus the model as it was, and of words minus each other, by `by` and
    `way`, with 95 % intervals over paired seeds.

    `rows` has one row of arm `none` for each of `by`, and one an arm, way and seed.
    """
    none = rows[rows["arm"] == NONE].set_index([*by])[measure]
    trained = rows[rows["arm"] != NONE]
    wide = trained.pivot_table(measure, [*by, "seed"], ["arm", way], sort=False)
    base = none.reindex(wide.droplevel("seed").index).to_numpy(dtype=float)
    arms, ways = (list(dict.fromkeys(trained[column])) for column in ("arm", way))
    there = [(arm, w) for arm, w in product(arms, ways) if (arm, w) in wide]
    changes = {(arm, NONE, w): wide[arm, w] - base for arm, w in there}
    changes |= {
        (WORDS, arm, w): wide[WORDS, w] - wide[arm, w]
        for arm, w in there
        if arm != WORDS and (WORDS, w) in wide
    }
    found: list[tuple[Any, ...]] = []
    for pair, change in changes.items():
        groups = change.dropna().groupby(level=[*by], sort=False)
        values = {key: own.to_numpy(dtype=float) for key, own in groups}
        found += [(*pair, *key, *summary) for key, summary in _summaries(values)]
    columns = ["arm", "against", way, *by, "difference", "low", "high", "interval", "seeds"]
    return pd.DataFrame(found, columns=[*columns, "detectable"])


def _summaries(values: dict[Any, Floats]) -> list[tuple[Any, tuple[Any, ...]]]:
    """Mean, interval, seeds and smallest detectable difference of each, whose spread is pooled."""
    spread, free = pooled(list(values.values()))
    return [
        (key, (own.mean(), *t_summary(own), len(own), smallest_detectable(spread, len(own), free)))
        for key, own in values.items()
    ]


def load_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Differences by name, those that are there, named by POINTS as a grid's are by anchor."""
    found = {name: folder / FOLDER / f"{name}.csv" for name in POINTS}
    read = {name: pd.read_csv(path) for name, path in found.items() if path.is_file()}
    return {name: t.assign(anchor=t[POINTS[name]], placement="") for name, t in read.items()}


def draw(tables: dict[str, pd.DataFrame]) -> list[Plot]:
    """A figure a table."""
    plots = {"differences": by_source, "fact_differences": by_frequency}
    return [plots[name](table) for name, table in tables.items()]


def by_source(table: pd.DataFrame) -> Plot:
    """Loss minus that of the model as it was, by source of the text, a panel a key."""
    data = table[table["against"] == NONE]
    keys = list(dict.fromkeys(data["key"]))
    with canvas(len(keys), width=4.8, height=4.2) as (figure, axes):
        for axis, key in zip(axes, keys, strict=True):
            _series(axis, data[data["key"] == key], ["arm"], "source")
            label(axis, "", "loss minus the model as it was (nats/token)", f"{key} key")
    caption = f"Of held-out text, in tokens of the pretrained model. {SHOWN}"
    title = "A bank on a frozen pretrained model"
    return Plot("difference_by_source", title, caption, figure, data.reset_index(drop=True))


def by_frequency(table: pd.DataFrame) -> Plot:
    """Share of answers named right minus that of the model as it was, a panel a kind of fact."""
    data = table[(table["against"] == NONE) & (table["measure"] == "exact")]
    probes = list(dict.fromkeys(data["probe"]))
    with canvas(len(probes), width=4.8, height=3.8) as (figure, axes):
        for axis, probe in zip(axes, probes, strict=True):
            _series(axis, data[data["probe"] == probe], ["arm", "route"], "bucket")
            words = "documents or mentions in the training text"
            label(axis, words, "", probe, legend=axis is axes[-1])
        axes[0].set_ylabel("share named right, minus the model as it was")
    caption = (
        f"Greedy generation names the answer; {STATED}: all facts that the text states. The oracle "
        f"path is an upper bound, which no honest use has. {SHOWN}"
    )
    title = "Facts that a bank brings to a frozen pretrained model"
    return Plot("recall_by_frequency", title, caption, figure, data.reset_index(drop=True))


def _series(axis: Axes, own: pd.DataFrame, by: list[str], along: str) -> None:
    """A series for each of `by`, side by side over the values of `along`."""
    names = list(dict.fromkeys(own[along]))
    for index, (series, points) in enumerate(own.groupby(by, sort=False)):
        place = points[along].map(names.index).to_numpy(dtype=float) + 0.15 * index
        bars = np.abs(points[["low", "high"]].to_numpy(float).T - points["difference"].to_numpy())
        style = look(index) | {"linestyle": "none"}
        axis.errorbar(
            place, points["difference"], bars, capsize=2, elinewidth=1.0,
            label=", ".join(map(str, series)), **style,
        )  # fmt: skip
    zero(axis)
    categories(axis, names, 30.0)
