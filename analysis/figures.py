"""Figures of the runs of a grid: pure functions of frames and fits."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.drawing import (
    BAND_SHOWN,
    SEEDS_SHOWN,
    curve,
    label,
    log_axis,
    ordered_arms,
    seeds_and_means,
    zero,
)
from analysis.intervals import Fitted
from analysis.law import Floats
from analysis.multiplier import dense_curve
from analysis.runs import main_budget
from analysis.seeds import POINT
from analysis.style import Plot, canvas, count, look
from core.record import KEYS as KEYS_OF_SPLIT

KEY_WORDS = {
    "prefix": "prefix key",
    "document": "whole-document key",
    "shuffled": "shuffled path",
    "off": "memory off",
}
RUNTIME = "runtime parameters N + M (without embeddings)"
LOSS = "test loss (nats/token)"
SIZES = 60  # points of a drawn fit
Fits = Mapping[tuple[str, str], Fitted]  # by (key, arm)


def loss_against_n(runs: pd.DataFrame, fits: Fits, split: str) -> Plot:
    """Loss against runtime parameters at the grid's main budget, a panel a key."""
    keys, rows, tokens = ("prefix", "document"), [], main_budget(runs)
    here = runs[runs["tokens"] == tokens].sort_values(["n_runtime", "seed"])
    with canvas(2, width=5.4, height=4.0) as (figure, axes):
        for axis, key in zip(axes, keys, strict=True):
            column = f"loss_{split}_{key}"
            for i, arm in enumerate(ordered_arms(runs)):
                own = here[(here["arm"] == arm) & here[column].notna()]
                if not len(own):
                    continue
                seeds_and_means(axis, own, "n_runtime", column, arm, i)
                points = own[["run_id", "arm", "seed", "n_runtime", column]]
                rows.append(points.rename(columns={column: "loss"}).assign(key=key, kind="run"))
                if own["n_runtime"].nunique() > 1:
                    line = _along_n(axis, own, fits.get((key, arm)), column, i)
                    rows.append(line.assign(arm=arm, key=key))
            log_axis(axis)
            label(axis, RUNTIME, LOSS, KEY_WORDS[key], legend=axis is axes[0])
    caption = (
        f"At {count(tokens)} training tokens. {SEEDS_SHOWN} Lines are fits, in N alone where an "
        f"arm has one number of tokens, else in N and D. {BAND_SHOWN} A thin line joins means of "
        "dense without a fit, as multipliers are read. The prefix key sees no token that is scored."
    )
    data = pd.concat(rows, ignore_index=True)
    return Plot("loss_against_n", "Loss against model size", caption, figure, data)


def _along_n(
    axis: Axes, own: pd.DataFrame, fitted: Fitted | None, column: str, index: int
) -> pd.DataFrame:
    """The fit of one arm over its sizes, or what joins its means if it is dense and has none;
    columns n_runtime, loss, low, high, kind. Empty for other arms without a fit.
    """
    size_n = _span(own["n_runtime"])
    if fitted and fitted.result.usable:
        x = {"N": size_n, "D": np.full(SIZES, own["tokens"].iloc[0])}
        line = _draw(axis, fitted, x, size_n, index).rename(columns={"x": "n_runtime"})
        return line.assign(kind="fit")
    joined = dense_curve(own, column, "n_runtime")
    if joined is None:
        return pd.DataFrame()
    loss_n = [joined.loss_at(size) for size in size_n]
    axis.plot(size_n, loss_n, color=look(index)["color"], lw=0.8)
    return pd.DataFrame({"n_runtime": size_n, "loss": loss_n, "kind": "joined means"})


def _span(values: "pd.Series[float]") -> Floats:
    least, most = values.min(), values.max()
    return np.geomspace(least, most, SIZES).clip(least, most)


def _draw(
    axis: Axes, fitted: Fitted, x: dict[str, Floats], along: Floats, index: int
) -> pd.DataFrame:
    """A fit over x, against one of its inputs; columns x, loss, low, high."""
    loss_n, edges = fitted.result.predict(x), fitted.band(x)
    curve(axis, along, loss_n, edges, index, fitted.result.converged)
    low_n, high_n = edges if edges else (np.full(along.size, np.nan),) * 2
    return pd.DataFrame({"x": along, "loss": loss_n, "low": low_n, "high": high_n})


def loss_against_d(runs: pd.DataFrame, fits: Fits, split: str) -> Plot:
    """Loss against training tokens, a line an anchor, a panel an arm with several budgets."""
    loss, rows = f"loss_{split}_prefix", []
    arms = [a for a in ordered_arms(runs) if runs.loc[runs["arm"] == a, "tokens"].nunique() > 1]
    with canvas(len(arms), width=4.4, height=3.8, columns=3) as (figure, axes):
        for axis, arm in zip(axes, arms, strict=True):
            arm_runs = runs[(runs["arm"] == arm) & runs[loss].notna()]
            ordered = arm_runs.sort_values("n_anchor", kind="stable")
            for i, (anchor, own) in enumerate(ordered.groupby("anchor", sort=False)):
                seeds_and_means(axis, own, "tokens", loss, str(anchor), i)
                points = own[["run_id", "arm", "anchor", "seed", "tokens", loss]]
                rows.append(points.rename(columns={loss: "loss"}).assign(kind="run"))
                fitted = fits.get(("prefix", arm))
                if fitted and fitted.result.usable and own["tokens"].nunique() > 1:
                    tokens_n = _span(own["tokens"])
                    x = {"N": np.full(SIZES, float(own["n_runtime"].iloc[0])), "D": tokens_n}
                    line = _draw(axis, fitted, x, tokens_n, i).rename(columns={"x": "tokens"})
                    rows.append(line.assign(arm=arm, anchor=anchor, kind="fit"))
            log_axis(axis)
            label(axis, "training tokens D", LOSS, f"{arm}, by anchor")
    caption = f"{SEEDS_SHOWN} Lines are fits of E + A/N^alpha + B/D^beta. {BAND_SHOWN}"
    data = pd.concat(rows, ignore_index=True)
    return Plot("loss_against_d", "Loss against training tokens", caption, figure, data)


def loss_curves(runs: pd.DataFrame, curves: pd.DataFrame) -> Plot:
    """Training loss against tokens, one line a run, a panel an anchor."""
    anchors = list(runs.sort_values("n_anchor", kind="stable")["anchor"].unique())
    known = runs.drop_duplicates("run_id")[["run_id", "arm", "anchor", "seed", "n_anchor"]]
    data = curves.merge(known, on="run_id").sort_values(
        ["n_anchor", "arm", "seed", "run_id", "step"]
    )
    with canvas(len(anchors), width=3.6, height=3.0, columns=3) as (figure, axes):
        for axis, anchor in zip(axes, anchors, strict=True):
            for i, arm in enumerate(ordered_arms(runs)):
                here = data[(data["anchor"] == anchor) & (data["arm"] == arm)]
                style = {"color": look(i)["color"], "ls": look(i)["linestyle"], "lw": 1.0}
                for j, (_, line) in enumerate(here.groupby("run_id", sort=False)):
                    named = arm if j == 0 else None
                    axis.plot(line["tokens"] / 1e6, line["loss"], label=named, **style)
            tokens, loss = "training tokens (millions)", "training loss (nats/token)"
            label(axis, tokens, loss, f"anchor {anchor}", legend=axis is axes[0])
    caption = "One line a run. The loss is that of the batch, noisier than the test losses."
    return Plot("loss_curves", "Training curves", caption, figure, data.drop(columns="n_anchor"))


def loss_by_key(runs: pd.DataFrame, split: str) -> Plot:
    """What the memory does by what the retriever saw, at the main budget, a panel an arm."""
    here = runs[runs["tokens"] == main_budget(runs)]
    arms = [a for a in ordered_arms(here) if (here.loc[here["arm"] == a, "n_fetched"] > 0).any()]
    rows: list[pd.DataFrame] = []
    with canvas(max(1, len(arms)), width=3.6, columns=3) as (figure, axes):
        for axis, arm in zip(axes, arms, strict=False):
            own = here[here["arm"] == arm].sort_values(["n_anchor", "seed"])
            for i, key in enumerate(KEYS_OF_SPLIT[split]):
                column = f"loss_{split}_{key}"
                known = own[own[column].notna()]
                if len(known):
                    seeds_and_means(axis, known, "n_anchor", column, KEY_WORDS[key], i)
                points = known[["run_id", "arm", "anchor", "seed", "n_anchor", column]]
                rows.append(points.rename(columns={column: "loss"}).assign(key=key))
            log_axis(axis)
            label(axis, "anchor parameters N", LOSS, arm, legend=axis is axes[0])
    caption = (
        f"{SEEDS_SHOWN} The same trained models and the same scored tokens; only the path "
        "changes. The whole-document key sees the tokens that are scored; a shuffled path is "
        "another window's."
    )
    return Plot("loss_by_key", "Loss by key", caption, figure, _stack(rows))


def _stack(rows: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def residuals(runs: pd.DataFrame, fits: Fits, split: str) -> Plot:
    """Residuals of the fits under the prefix key, against size: a bend speaks against the law."""
    rows = []
    with canvas(width=6.0, height=3.6) as (figure, (axis,)):
        for i, arm in enumerate(ordered_arms(runs)):
            fitted = fits.get(("prefix", arm))
            if fitted is None or not fitted.result.usable:
                continue
            own = runs[(runs["arm"] == arm) & runs[f"loss_{split}_prefix"].notna()]
            data = own[["run_id", "seed", "n_runtime", *POINT]].assign(
                residual=fitted.result.residuals
            )
            seeds_and_means(axis, data, "n_runtime", "residual", arm, i, bars=False)
            rows.append(data)
        zero(axis)
        log_axis(axis)
        label(axis, RUNTIME, "log measured - log fitted")
    caption = (
        "Of the fits under the prefix key. Hollow points are runs, full ones means over seeds. "
        "Points that bend together speak against the law."
    )
    return Plot("residuals", "Residuals", caption, figure, _stack(rows))
