"""What figures are drawn with: runs and their means, lines with bands, axes with words."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.law import Floats
from analysis.seeds import LEAST_SEEDS, POINT, t_summary
from analysis.style import count, look

SEEDS_SHOWN = (
    "Hollow points are runs, one a seed; full ones are means, with a 95 % interval from three "
    "seeds on."
)
# In what rows of one name can differ, and how a name says so.
SIZES: dict[str, Callable[[Any], str]] = {
    "n_fetched": lambda value: f"M {count(value)}",
    "n_bank": lambda value: f"W {count(value)}",
    "placement": str,
    "tokens": lambda value: f"D {count(value)}",
}
BAND_SHOWN = "Bands hold 95 % of the bootstrap fits; a fit with a warning status is pale."


def ordered_arms(runs: pd.DataFrame) -> list[str]:
    """Dense first, then generic, then the others by name: one order, so one look, in every
    figure.
    """
    rank = {"none": 0, "generic": 1}
    kinds = runs.groupby("arm")["memory_type"].first()
    return sorted(kinds.index, key=lambda arm: (rank.get(kinds[arm], 2), arm))


def told_apart(names: pd.Series, table: pd.DataFrame) -> pd.Series:
    """Names of rows, with the sizes in which rows of one name differ."""
    known = {column: said for column, said in SIZES.items() if column in table}
    for column, said in known.items():
        varied = table[column].groupby(names).transform("nunique") > 1
        names = names.where(~varied, names + ", " + table[column].map(said))
    return names


def seeds_and_means(
    axis: Axes,
    own: pd.DataFrame,
    x: str,
    y: str,
    label: str,
    index: int,
    line: bool = False,
    bars: bool = True,
) -> None:
    """Runs as small hollow markers, means over seeds as full ones, with `bars` of intervals."""
    style = look(index)
    hollow: Any = {"marker": style["marker"], "color": style["color"], "mfc": "none"}
    axis.plot(own[x], own[y], ls="none", ms=3, mew=0.7, **hollow)
    point = [x, *(column for column in POINT if column in own and column != x)]
    groups = [group for _, group in own.groupby(point, sort=True)]
    place, means = ([float(group[name].mean()) for group in groups] for name in (x, y))
    half = [_half(group[y].to_numpy(dtype=float)) if bars else 0.0 for group in groups]
    style["linestyle"] = style["linestyle"] if line else "none"
    axis.errorbar(place, means, yerr=half, capsize=2, elinewidth=1.0, label=label, **style)


def _half(values: Floats) -> float:
    """Half the interval of a mean; nil with too few seeds for one."""
    if len(values) < LEAST_SEEDS:
        return 0.0
    low, high, _ = t_summary(values)
    return 0.5 * (high - low)


def curve(
    axis: Axes, x: Floats, y: Floats, band: tuple[Floats, Floats] | None, index: int, sure: bool
) -> None:
    """A fit, with its band; pale where it is not sure."""
    style = look(index)
    line: Any = {"color": style["color"], "ls": style["linestyle"]}
    axis.plot(x, y, alpha=1.0 if sure else 0.4, **line)
    if band is not None:
        axis.fill_between(x, *band, color=style["color"], alpha=0.12, lw=0)


def label(axis: Axes, x: str, y: str = "", title: str = "", legend: bool = True) -> None:
    """Words on an axis; a legend where something has a label."""
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.set_title(title)
    if legend and axis.get_legend_handles_labels()[0]:
        axis.legend()


def zero(axis: Axes, at: float = 0.0) -> None:
    """A line where nothing is gained."""
    axis.axhline(at, color="#777777", lw=0.8)


def log_axis(axis: Axes) -> None:
    """A logarithmic x axis, labelled 10k, 20k, 50k."""
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    subs = (1.0, 2.0, 5.0) if high < 300 * low else (1.0,)
    axis.xaxis.set_major_locator(LogLocator(subs=subs))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axis.xaxis.set_minor_formatter(NullFormatter())


def categories(axis: Axes, names: list[str], rotation: float = 0.0) -> None:
    """Names along the x axis."""
    slanted: Any = {"rotation": rotation, "ha": "right"} if rotation else {}
    axis.set_xticks(np.arange(len(names)))
    axis.set_xticklabels(names, **slanted)
