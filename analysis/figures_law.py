"""Figures of a law: fit with its band, iso-FLOP curves, envelope, frontier, profiles."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.drawing import BAND_SHOWN, curve, label, log_axis, zero
from analysis.intervals import Fitted
from analysis.isoflop import LEAST_SIZES, MinimumStatus, by_budget
from analysis.law import Floats, Table
from analysis.profile import Profile
from analysis.style import Plot, canvas, look


def fit_figure(fitted: Fitted, x: Table, y: Floats) -> Plot:
    """Measured against predicted, and residuals against the first input, with the fit's band."""
    result, first = fitted.result, fitted.result.law.inputs[0]
    known = {"measured": y, "predicted": result.predict(x), "residual": result.residuals}
    data = pd.DataFrame({**x, **known})
    edges = fitted.band(x)
    if edges:
        data["low"], data["high"] = edges
    ordered = data.sort_values(["predicted", "measured"], ignore_index=True)
    rows: dict[str, Any] = {"color": "#111111", "mfc": "none"}
    with canvas(2) as (figure, (left, right)):
        left.plot(ordered["predicted"], ordered["measured"], "o", label="rows", **rows)
        band = (ordered["low"].to_numpy(), ordered["high"].to_numpy()) if edges else None
        line = ordered["predicted"].to_numpy()
        curve(left, line, line, band, 1, result.converged)
        label(left, "predicted", "measured", result.law.formula)
        right.plot(data[first], data["residual"], "o", **rows)
        zero(right)
        log_axis(right)
        words = "measured - fit" if result.objective.linear else "log measured - log fit"
        label(right, first, words, str(result.status))
    return Plot("fit", "Fit and residuals", f"{result.describe()}. {BAND_SHOWN}", figure, data)


def isoflop_curves(
    frame: pd.DataFrame, size: str, flops: str, loss: str, minima: pd.DataFrame
) -> Plot:
    """Loss against size at each budget, with the minima that were found."""
    rows = []
    with canvas(width=6.0, height=4.0) as (figure, (axis,)):
        budgets = by_budget(frame, flops)
        curves = [own for _, own in budgets if own[size].nunique() >= LEAST_SIZES]
        for i, own in enumerate(curves):
            means = own.groupby(size)[loss].mean()
            axis.plot(means.index, means, label=f"{own[flops].mean():.2g} FLOP", **look(i))
            rows.append(pd.DataFrame({"flops": own[flops], "size": own[size], "loss": own[loss]}))
        found = minima[minima["status"] == MinimumStatus.FOUND]
        spread = found["size"] * (np.exp(1.96 * found["error"]) - 1)
        cross: Any = {"fmt": "k+", "ms": 9, "capsize": 3, "label": "minimum, 95 %"}
        axis.errorbar(found["size"], found["loss"], xerr=spread, **cross)
        log_axis(axis)
        label(axis, "runtime parameters N + M", "test loss (nats/token)")
    refused = minima[~minima["status"].isin([MinimumStatus.FOUND, MinimumStatus.TOO_FEW])]
    words = "; ".join(f"{r.flops:.2g} FLOP: {r.status}" for r in refused.itertuples())
    caption = "Minima of parabolas in log size." + (f" Refused: {words}." if words else "")
    data = pd.concat(rows, ignore_index=True)
    return Plot("isoflop", "Iso-FLOP curves", caption, figure, data)


def envelope_curve(curves: pd.DataFrame, lowest: pd.DataFrame) -> Plot:
    """All training curves against FLOPs, and the lowest of them at each budget."""
    with canvas(width=6.0, height=4.0) as (figure, (axis,)):
        for _, run in curves.groupby("run_id", sort=True):
            axis.plot(run["flops"], run["loss"], color="#bbbbbb", lw=0.6)
        axis.plot(lowest["flops"], lowest["loss"], "o", color="#111111", ms=4, label="envelope")
        axis.set_xscale("log")
        label(axis, "training FLOPs spent", "training loss (nats/token)")
    caption = (
        "Which size is lowest at each budget (Approach 1 of arXiv 2203.15556). Runs whose "
        "schedule had not ended are higher than a run made for that budget: read it as a bound."
    )
    return Plot("envelope", "Envelope of the training curves", caption, figure, lowest)


def frontier(table: pd.DataFrame) -> Plot:
    """Anchor against fetched memory at equal predicted loss; columns loss, n_fetched, n_anchor."""
    with canvas(width=5.4, height=3.8) as (figure, (axis,)):
        for i, (loss, own) in enumerate(table.groupby("loss", sort=True)):
            line: Any = {**look(i), "marker": ""}
            axis.plot(own["n_fetched"], own["n_anchor"], label=f"loss {loss:.3g}", **line)
        log_axis(axis)
        axis.set_yscale("log")
        label(axis, "fetched memory M (parameters)", "anchor N (parameters)")
    caption = (
        "Pairs of anchor and fetched memory that reach one loss under the chosen law, at the "
        "grid's main budget and median bank per fetched parameter."
    )
    return Plot("frontier", "Iso-loss frontiers", caption, figure, table)


def profiles(found: Sequence[Profile]) -> Plot:
    """Rise of the objective along each parameter; the dashed line ends the interval."""
    rows = []
    with canvas(len(found), width=2.6, height=2.4, columns=5) as (figure, axes):
        for axis, own in zip(axes, found, strict=True):
            axis.plot(own.value_n, np.minimum(own.rise_n, 3 * own.limit), color="#111111")
            axis.axhline(own.limit, color="#c0392b", ls="--", lw=0.9)
            label(axis, own.name, "rise", "flat: no limit" if own.flat else "")
            line = {"parameter": own.name, "value": own.value_n, "rise": own.rise_n}
            rows.append(pd.DataFrame(line))
    caption = (
        "How far the best objective rises with a parameter held. Where it stays below the dashed "
        "line (95 %), the data do not know the parameter."
    )
    data = pd.concat(rows, ignore_index=True)
    return Plot("profiles", "Profiles", caption, figure, data)
