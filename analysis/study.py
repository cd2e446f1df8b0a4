"""One grid, analysed: fits per arm, comparisons, model choice, figures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import figures, figures_law, figures_memory
from analysis.choice import Choice, choose, largest
from analysis.compare import DENSE, EQUAL_RUNTIME, multipliers, paired_differences
from analysis.counts import exponents
from analysis.facts import split_gains
from analysis.fit import fit
from analysis.intervals import bootstrap, with_intervals
from analysis.isoflop import isoflop_minima
from analysis.law import Floats
from analysis.memory_laws import MEMORY_LAWS, find_law
from analysis.result import FitResult
from analysis.runs import GridRuns, load_curves, load_extra, load_question, load_runs
from analysis.style import Plot

SPLIT = "test"
KEYS = ("prefix", "document")  # the headline first
MEASURES = ("n_runtime", "train_flops", "bytes_held")
# A law with a data term and a memory axis needs as many budgets and sizes to be told apart.
LEAST_BUDGETS = 3
Fits = dict[tuple[str, str], FitResult]  # by (key, arm)


@dataclass(frozen=True)
class Study:
    """All that a report shows of a grid."""

    grid: str
    question: str
    runs: GridRuns
    fits: Fits
    multipliers: dict[tuple[str, str], pd.DataFrame]  # by (key, measure)
    differences: pd.DataFrame
    exponents: pd.DataFrame
    choice: Choice | None  # between the memory laws; None where the grid cannot tell at all
    facts: pd.DataFrame  # long tail against common; empty where no fact was asked
    plots: list[Plot]


def analyse(results: Path, grid: str) -> Study:
    """Fits, comparisons and figures of results/<grid>. Raises InputError if nothing is done."""
    runs = load_runs(results, grid)
    fits = fit_arms(runs.done)
    worth = _multipliers(runs.done, fits)
    return Study(
        grid=grid,
        question=load_question(results, grid),
        runs=runs,
        fits=fits,
        multipliers=worth,
        differences=_differences(runs.done),
        exponents=exponents(runs.done, _loss("prefix")),
        choice=_choose_law(runs.done),
        facts=_facts(runs.done, load_extra(results, grid, "probes")),
        plots=_plots(results, grid, runs.done, fits, worth),
    )


def fit_arms(runs: pd.DataFrame) -> Fits:
    """E + A/N^alpha in runtime parameters, per arm and key, where all have one number of tokens."""
    fits: Fits = {}
    for key in KEYS:
        for arm in figures.ordered_arms(runs):
            own = runs[(runs["arm"] == arm) & runs[_loss(key)].notna()]
            if own["tokens"].nunique() == 1:
                fits[key, arm] = _fit(own, ("N",), key)
    return fits


def _fit(own: pd.DataFrame, inputs: tuple[str, ...], key: str) -> FitResult:
    law = find_law("saturating" if inputs == ("N",) else "chinchilla")
    x, y = law_inputs(own), np.asarray(own[_loss(key)], dtype=float)
    result = fit(law, x, y)
    return with_intervals(result, bootstrap(result, x, y))


def law_inputs(runs: pd.DataFrame) -> dict[str, Floats]:
    """N as runtime parameters, D, and under their own names the memory columns."""
    columns = {"N": "n_runtime", "D": "tokens"}
    return {name: np.asarray(runs[column], dtype=float) for name, column in columns.items()}


def memory_inputs(runs: pd.DataFrame) -> dict[str, Floats]:
    """N as the anchor alone; fetched and bank apart."""
    columns = {"N": "n_anchor", "D": "tokens", "M": "n_fetched", "W": "n_bank"}
    return {name: np.asarray(runs[column], dtype=float) for name, column in columns.items()}


def _loss(key: str) -> str:
    return f"loss_{SPLIT}_{key}"


def _multipliers(runs: pd.DataFrame, fits: Fits) -> dict[tuple[str, str], pd.DataFrame]:
    dense = sorted(runs.loc[runs["memory_type"] == DENSE, "arm"].unique())
    tables = {}
    for key in KEYS:
        for measure in MEASURES:
            own = fits.get((key, dense[0])) if dense and measure == "n_runtime" else None
            tables[key, measure] = multipliers(runs, _loss(key), measure, own)
    return tables


def _differences(runs: pd.DataFrame) -> pd.DataFrame:
    """Every routed arm against every generic arm and against dense at equal runtime."""
    kinds = runs.groupby("arm")["memory_type"].first()
    routed = [arm for arm in figures.ordered_arms(runs) if kinds[arm] not in (DENSE, "generic")]
    others = [*sorted(kinds.index[kinds == "generic"]), EQUAL_RUNTIME]
    tables = [
        paired_differences(runs, arm, against, _loss(key)).assign(key=key)
        for key in KEYS
        for arm in routed
        for against in others
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _facts(runs: pd.DataFrame, probes: pd.DataFrame) -> pd.DataFrame:
    """Against the generic arm where there is one, against the dense one elsewhere."""
    kinds = runs.groupby("arm")["memory_type"].first()
    controls = [arm for kind in ("generic", DENSE) for arm in sorted(kinds.index[kinds == kind])]
    return split_gains(runs, probes, controls[0]) if len(probes) and controls else pd.DataFrame()


def _choose_law(runs: pd.DataFrame) -> Choice | None:
    """Between the memory laws, the largest anchors held out."""
    runs = runs[runs[_loss("prefix")].notna()]
    varied = runs["tokens"].nunique() >= LEAST_BUDGETS and runs["n_anchor"].nunique() > 3
    if not varied or not (runs["n_fetched"] > 0).any():
        return None
    x, y = memory_inputs(runs), np.asarray(runs[_loss("prefix")], dtype=float)
    return choose(MEMORY_LAWS, x, y, largest(x["N"]))


def _plots(
    results: Path,
    grid: str,
    runs: pd.DataFrame,
    fits: Fits,
    worth: dict[tuple[str, str], pd.DataFrame],
) -> list[Plot]:
    """Every figure for which the grid varies what it shows."""
    plots = [figures.loss_against_n(runs, fits, SPLIT)] if fits else []
    if any(result.usable for (key, _), result in fits.items() if key == "prefix"):
        plots.append(figures.residuals(runs, fits, SPLIT))
    if runs["tokens"].nunique() > 1:
        plots += _plots_over_tokens(runs)
    if (runs["n_fetched"] > 0).any():
        plots.append(figures_memory.multiplier_by_arm(worth))
        plots += figures_memory.memory_plots(runs, SPLIT)
        plots.append(figures.loss_by_key(runs, SPLIT))
    probes, blocking = load_extra(results, grid, "probes"), load_extra(results, grid, "blocking")
    if len(probes):
        plots.append(figures_memory.recall_by_frequency(runs, probes))
    if len(blocking):
        plots.append(figures_memory.blocking_curve(runs, blocking))
    curves = load_curves(results, grid)
    if len(curves):
        plots.append(figures.loss_curves(runs, curves))
    return plots


def _plots_over_tokens(runs: pd.DataFrame) -> list[Plot]:
    fits = {
        str(arm): _fit(own, ("N", "D"), "prefix")
        for arm, own in runs.groupby("arm", sort=True)
        if own["tokens"].nunique() > 1 and own[_loss("prefix")].notna().all()
    }
    plots = [figures_law.loss_against_d(runs, SPLIT, fits)]
    dense = runs[(runs["memory_type"] == DENSE) & runs[_loss("prefix")].notna()]
    if not len(dense):
        return plots
    minima = isoflop_minima(dense, "n_runtime", "train_flops", _loss("prefix"))
    if (minima["status"] == "found").any():
        columns = ("n_runtime", "train_flops", _loss("prefix"))
        plots.append(figures_law.isoflop_curves(dense, *columns, minima))
    return plots
