"""Figures of a law: fit with its band, residuals, loss against D, iso-FLOP curves, profiles."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from analysis.figures import log_axis, seeds_and_means
from analysis.intervals import Bootstrap
from analysis.law import Floats, Table
from analysis.profile import Profile
from analysis.result import FitResult
from analysis.style import RC, Plot, canvas, look

BAND_DRAWS = 300
BAND = (0.025, 0.975)


def fit_figure(result: FitResult, x: Table, y: Floats, boot: Bootstrap | None) -> Plot:
    """Measured against predicted, and residuals against the first input, with the fit's band."""
    prediction = result.predict(x)
    first = result.law.inputs[0]
    data = pd.DataFrame({**x, "measured": y, "predicted": prediction, "residual": result.residuals})
    if boot is not None and len(boot.theta_bp):
        data["low"], data["high"] = band(boot, x)
    ordered = data.sort_values(["predicted", "measured"], ignore_index=True)
    with matplotlib.rc_context(RC):
        figure, (left, right) = canvas(columns=2)
        fitted = ordered["predicted"]
        rows: dict[str, Any] = {"color": "#111111", "mfc": "none"}
        left.plot(fitted, ordered["measured"], "o", label="rows", **rows)
        left.plot(fitted, fitted, "-", color="#c0392b", label="fit")
        if "low" in ordered:
            edges = (ordered["low"], ordered["high"])
            words = "95 % of bootstrap fits"
            left.fill_between(fitted, *edges, color="#c0392b", alpha=0.2, lw=0, label=words)
        left.set_xlabel("predicted")
        left.set_ylabel("measured")
        left.set_title(result.law.formula)
        left.legend()
        right.plot(data[first], data["residual"], "o", **rows)
        right.axhline(0.0, color="#777777", lw=0.8)
        log_axis(right)
        right.set_xlabel(first)
        right.set_ylabel("residual" if result.objective.linear else "residual (log measured / fit)")
        right.set_title(result.describe()[:60])
    return Plot("fit", "Fit and residuals", result.describe(), figure, data)


def band(boot: Bootstrap, x: Table) -> tuple[Floats, Floats]:
    """Quantiles of predictions over bootstrap fits [n]."""
    law = boot.result.law
    draws = [law.curve(law.to_parameters(theta), x) for theta in boot.theta_bp[:BAND_DRAWS]]
    low, high = np.quantile(draws, BAND, axis=0)
    return low, high


def loss_against_d(runs: pd.DataFrame, split: str, fits: dict[str, FitResult]) -> Plot:
    """Loss against tokens, a line an anchor, a panel an arm; `fits` by arm, of laws in N and D."""
    loss, arms, rows = f"loss_{split}_prefix", sorted(runs["arm"].unique()), []
    with matplotlib.rc_context(RC):
        figure, axes = canvas(len(arms), width=3.6)
        for axis, arm in zip(axes, arms, strict=True):
            arm_runs = runs[runs["arm"] == arm]
            for i, (anchor, own) in enumerate(arm_runs.groupby("anchor", sort=True)):
                style = look(i)
                means = own.groupby("tokens")[loss].mean()
                seeds_and_means(axis, own, "tokens", loss, str(anchor), i)
                columns = ["run_id", "arm", "anchor", "seed", "tokens", loss]
                rows.append(own[columns].rename(columns={loss: "loss"}).assign(kind="run"))
                fit = fits.get(arm)
                if fit is not None and fit.usable and len(means) > 1:
                    grid = np.geomspace(means.index.min(), means.index.max(), 40)
                    size = np.full(40, float(own["n_runtime"].iloc[0]))
                    curve = fit.predict({"N": size, "D": grid})
                    axis.plot(grid, curve, color=style["color"], ls=style["linestyle"],
                              alpha=1 if fit.converged else 0.4)  # fmt: skip
                    line = {"arm": arm, "anchor": anchor, "tokens": grid, "loss": curve}
                    rows.append(pd.DataFrame(line).assign(kind="fit"))
            log_axis(axis)
            axis.set_xlabel("training tokens D")
            axis.set_title(arm)
        axes[0].set_ylabel(f"{split} loss (nats/token)")
        axes[0].legend()
    return Plot(
        "loss_against_d",
        "Loss against training tokens",
        "Small points are runs, large ones means over seeds; lines are fits of "
        "E + A/N^alpha + B/D^beta.",
        figure,
        pd.concat(rows, ignore_index=True),
    )


def isoflop_curves(
    frame: pd.DataFrame, size: str, flops: str, loss: str, minima: pd.DataFrame
) -> Plot:
    """Loss against size at each budget, with the minima that were found."""
    budget = np.round(np.log(frame[flops]) / np.log(1.05))
    rows = []
    with matplotlib.rc_context(RC):
        figure, (axis,) = canvas()
        for i, (_, own) in enumerate(frame.groupby(budget, sort=True)):
            means = own.groupby(size)[loss].mean()
            axis.plot(means.index, means, label=f"{own[flops].mean():.2g} FLOP", **look(i))
            rows.append(pd.DataFrame({"flops": own[flops], "size": own[size], "loss": own[loss]}))
        found = minima[minima["status"] == "found"]
        spread = found["size"] * (np.exp(1.96 * found["error"]) - 1)
        axis.errorbar(
            found["size"], found["loss"], xerr=spread, fmt="k+", capsize=2, label="minimum, 95 %"
        )
        log_axis(axis)
        axis.set_xlabel("runtime parameters N + M")
        axis.set_ylabel("test loss (nats/token)")
        axis.legend()
    refused = minima[minima["status"] != "found"]
    words = "; ".join(f"{r.flops:.2g} FLOP: {r.status}" for r in refused.itertuples())
    return Plot(
        "isoflop",
        "Iso-FLOP curves",
        "Minima of parabolas in log size." + (f" Refused: {words}." if words else ""),
        figure,
        pd.concat(rows, ignore_index=True),
    )


def profiles(found: Sequence[Profile]) -> Plot:
    """Rise of the objective along each parameter; the dashed line ends the interval."""
    rows = []
    with matplotlib.rc_context(RC):
        figure, axes = canvas(len(found), width=2.6, height=2.4)
        for axis, own in zip(axes, found, strict=True):
            axis.plot(own.value_n, np.minimum(own.rise_n, 3 * own.limit), color="#111111")
            axis.axhline(own.limit, color="#c0392b", ls="--", lw=0.9)
            axis.set_xlabel(own.name)
            axis.set_title("flat: no limit" if own.flat else "")
            rows.append(
                pd.DataFrame({"parameter": own.name, "value": own.value_n, "rise": own.rise_n})
            )
        axes[0].set_ylabel("rise of the objective")
    return Plot(
        "profiles",
        "Profiles",
        "Best objective at each value of a parameter. Where it stays low, the data do not know it.",
        figure,
        pd.concat(rows, ignore_index=True),
    )
