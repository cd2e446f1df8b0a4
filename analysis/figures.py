"""Figures of one grid: pure functions of frames and fits."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.result import FitResult
from analysis.style import RC, Plot, canvas, count, look
from core.record import KEYS as KEYS_OF_SPLIT

KEY_WORDS = {
    "prefix": "prefix key",
    "document": "whole-document key",
    "shuffled": "shuffled path",
    "off": "memory off",
}


def ordered_arms(runs: pd.DataFrame) -> list[str]:
    """Dense first, then generic, then the others by name: one order, so one look, in every
    figure.
    """
    rank = {"none": 0, "generic": 1}
    kinds = runs.groupby("arm")["memory_type"].first()
    return sorted(kinds.index, key=lambda arm: (rank.get(kinds[arm], 2), arm))


def loss_against_n(
    runs: pd.DataFrame, fits: Mapping[tuple[str, str], FitResult], split: str = "test"
) -> Plot:
    """Loss against runtime parameters, a panel a key; `fits` by (key, arm)."""
    keys, arms, rows = ("prefix", "document"), ordered_arms(runs), []
    with matplotlib.rc_context(RC):
        figure, axes = canvas(columns=2)
        for axis, key in zip(axes, keys, strict=True):
            column = f"loss_{split}_{key}"
            for i, arm in enumerate(arms):
                own = runs[runs["arm"] == arm].sort_values(["n_runtime", "seed"])
                seeds_and_means(axis, own, "n_runtime", column, arm, i)
                points = own[["run_id", "arm", "seed", "n_runtime", column]]
                rows.append(points.rename(columns={column: "loss"}).assign(key=key, kind="run"))
                fit = fits.get((key, arm))
                if fit is not None and fit.usable and len(own["n_runtime"].unique()) > 1:
                    rows.append(_draw_fit(axis, own["n_runtime"], fit, arm, key, i))
            log_axis(axis)
            axis.set_xlabel("runtime parameters N + M (without embeddings)")
            axis.set_title(KEY_WORDS[key])
        axes[0].set_ylabel(f"{split} loss (nats/token)")
        axes[0].legend()
    return Plot(
        "loss_against_n",
        "Loss against model size",
        "Small points are runs, one a seed; large ones are means over seeds. Lines are fits of "
        "E + A/N^alpha, pale where the fit has a warning status. The prefix key sees no token "
        "that is scored.",
        figure,
        pd.concat(rows, ignore_index=True),
    )


def seeds_and_means(axis: Axes, own: pd.DataFrame, x: str, y: str, label: str, index: int) -> None:
    """Runs as small open markers, means over them as large ones."""
    style = look(index)
    axis.plot(
        own[x],
        own[y],
        ls="none",
        marker=style["marker"],
        ms=3,
        mfc="none",
        mew=0.7,
        color=style["color"],
    )
    means = own.groupby(x)[y].mean()
    axis.plot(
        means.index, means, ls="none", marker=style["marker"], color=style["color"], label=label
    )


def _draw_fit(
    axis: Axes, size: pd.Series, fit: FitResult, arm: str, key: str, index: int
) -> pd.DataFrame:
    grid = np.geomspace(size.min(), size.max(), 60)
    loss = fit.predict({"N": grid})
    style = look(index)
    axis.plot(
        grid, loss, color=style["color"], ls=style["linestyle"], alpha=1 if fit.converged else 0.4
    )
    return pd.DataFrame({"arm": arm, "n_runtime": grid, "loss": loss, "key": key, "kind": "fit"})


def log_axis(axis: Axes) -> None:
    """A logarithmic x axis, labelled 10k, 20k, 50k."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axis.xaxis.set_minor_formatter(NullFormatter())


def loss_curves(runs: pd.DataFrame, curves: pd.DataFrame) -> Plot:
    """Training loss against tokens, one line a run, a panel an anchor."""
    anchors = list(runs.sort_values("n_anchor")["anchor"].unique())
    arms = ordered_arms(runs)
    known = runs.drop_duplicates("run_id")[["run_id", "arm", "anchor", "seed", "n_anchor"]]
    data = curves.merge(known, on="run_id").sort_values(
        ["n_anchor", "arm", "seed", "run_id", "step"]
    )
    columns = min(3, len(anchors))
    with matplotlib.rc_context(RC):
        figure, axes = canvas(columns, -(-len(anchors) // columns), width=3.3, height=2.7)
        for axis, anchor in zip(axes, anchors, strict=False):
            for i, arm in enumerate(arms):
                here = data[(data["anchor"] == anchor) & (data["arm"] == arm)]
                for j, (_, line) in enumerate(here.groupby("run_id", sort=False)):
                    style = look(i)
                    axis.plot(
                        line["tokens"] / 1e6,
                        line["loss"],
                        color=style["color"],
                        ls=style["linestyle"],
                        lw=1.0,
                        label=arm if j == 0 else None,
                    )
            axis.set_title(f"anchor {anchor}")
            axis.set_xlabel("training tokens (millions)")
            axis.set_ylabel("training loss (nats/token)")
            axis.legend()
        for axis in axes[len(anchors) :]:
            axis.set_visible(False)
    return Plot(
        "loss_curves",
        "Training curves",
        "One line a run. The loss is that of the batch, so it is noisier than the test losses.",
        figure,
        data.drop(columns="n_anchor"),
    )


def loss_by_key(runs: pd.DataFrame, split: str = "test") -> Plot:
    """What the memory does by what the retriever saw: loss minus that with the prefix key."""
    arms = [
        arm for arm in ordered_arms(runs) if (runs.loc[runs["arm"] == arm, "n_fetched"] > 0).any()
    ]
    rows = []
    with matplotlib.rc_context(RC):
        figure, axes = canvas(columns=max(1, len(arms)), width=3.5)
        for axis, arm in zip(axes, arms, strict=False):
            own = runs[runs["arm"] == arm].sort_values(["n_anchor", "seed"])
            for i, key in enumerate(KEYS_OF_SPLIT[split]):
                column = f"loss_{split}_{key}"
                if own[column].notna().any():
                    seeds_and_means(axis, own, "n_anchor", column, KEY_WORDS[key], i)
                points = own[["run_id", "arm", "anchor", "seed", "n_anchor", column]]
                rows.append(points.rename(columns={column: "loss"}).assign(key=key))
            log_axis(axis)
            axis.set_title(arm)
            axis.set_xlabel("anchor parameters N")
        axes[0].set_ylabel(f"{split} loss (nats/token)")
        axes[0].legend()
    data: Sequence[pd.DataFrame] = rows
    return Plot(
        "loss_by_key",
        "Loss by key",
        "The same trained models and the same scored tokens; only the path changes. The "
        "whole-document key sees the tokens that are scored; a shuffled path is another window's.",
        figure,
        pd.concat(data, ignore_index=True) if data else pd.DataFrame(),
    )


def residuals(runs: pd.DataFrame, fits: Mapping[tuple[str, str], FitResult], split: str) -> Plot:
    """Residuals of the fits in loss_against_n, against size: a bend means that the law is wrong."""
    rows = []
    with matplotlib.rc_context(RC):
        figure, (axis,) = canvas()
        for i, arm in enumerate(ordered_arms(runs)):
            fit = fits.get(("prefix", arm))
            if fit is None or not fit.usable:
                continue
            own = runs[(runs["arm"] == arm) & runs[f"loss_{split}_prefix"].notna()]
            data = own[["run_id", "arm", "seed", "n_runtime"]].assign(residual=fit.residuals)
            seeds_and_means(axis, data, "n_runtime", "residual", arm, i)
            rows.append(data)
        axis.axhline(0.0, color="#777777", lw=0.8)
        log_axis(axis)
        axis.set_xlabel("runtime parameters N + M (without embeddings)")
        axis.set_ylabel("log measured - log fitted")
        axis.legend()
    return Plot(
        "residuals",
        "Residuals",
        "Of the fits under the prefix key. Points that bend together speak against the law.",
        figure,
        pd.concat(rows, ignore_index=True),
    )
