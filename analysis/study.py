"""One grid, analysed: fits per arm, comparisons, model choice, optima, figures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.comparisons import Worth, compare_answers, compare_arms, multiplier_tables
from analysis.counts import exponents
from analysis.drawing import ordered_arms
from analysis.facts import answer_multipliers
from analysis.figures import Fits
from analysis.intervals import Fitted, fit_with_intervals
from analysis.memory_law import MemoryLaw, choose_memory_law
from analysis.memory_laws import find_law
from analysis.optima import Optima, find_optima
from analysis.paired import SINCE_FEWEST, control_differences
from analysis.plots import draw
from analysis.profile import Profile, profiles_of
from analysis.runs import (
    GridRuns,
    load_curves,
    load_extra,
    load_question,
    load_runs,
    main_budget,
)
from analysis.style import Plot
from analysis.tune import at_best_rates, varies_rates

SPLIT = "test"
KEYS = ("prefix", "document")  # the headline first


@dataclass(frozen=True)
class Study:
    """All that a report shows of a grid."""

    grid: str
    question: str
    runs: GridRuns
    tuned: bool  # the grid varies learning rates: comparisons are made at the best ones
    tokens: float  # the main budget, of which figures at one budget are
    fits: Fits
    profiles: dict[str, list[Profile]]  # by arm, under the prefix key
    multipliers: Worth  # by (key, measure)
    differences: pd.DataFrame  # between arms
    controls: pd.DataFrame  # within runs, between keys
    exponents: pd.DataFrame
    memory_law: MemoryLaw | None  # None where the grid cannot tell at all
    optima: Optima
    facts: pd.DataFrame  # long tail against common; empty where no fact was asked
    fact_multipliers: pd.DataFrame  # of the same answers
    plots: list[Plot]

    def at_main_budget(self, table: pd.DataFrame) -> pd.DataFrame:
        """Rows of the main budget, all rows of arms that have another one in their place, as those
        whose anchor was trained first, and what compares budgets.
        """
        if table.empty:
            return table
        here = table["tokens"] == self.tokens
        shown = here | ~table["arm"].isin(table.loc[here, "arm"])
        if "against" in table:
            shown |= table["against"].str.endswith(SINCE_FEWEST)
        return table[shown]


def analyse(results: Path, grid: str) -> Study:
    """Fits, comparisons and figures of results/<grid>. Raises InputError if nothing is done."""
    loaded = load_runs(results, grid)
    runs, curves = at_best_rates(loaded.done), load_curves(results, grid)
    probes, blocking = (load_extra(results, grid, runs, name) for name in ("probes", "blocking"))
    fits = fit_arms(runs)
    worth = multiplier_tables(runs, fits, KEYS, SPLIT)
    headline = {arm: own for (key, arm), own in fits.items() if key == KEYS[0]}
    profiles = {arm: _profiles(runs, arm, own) for arm, own in headline.items()}
    memory_law, optima = choose_memory_law(runs, _loss(KEYS[0])), find_optima(runs, curves, SPLIT)
    extras = {"probes": probes, "blocking": blocking, "curves": curves}
    return Study(
        grid=grid,
        question=load_question(results, grid),
        runs=loaded,
        tuned=varies_rates(loaded.done),
        tokens=main_budget(runs),
        fits=fits,
        profiles=profiles,
        multipliers=worth,
        differences=compare_arms(runs, KEYS, SPLIT),
        controls=control_differences(runs, SPLIT),
        exponents=exponents(runs, _loss(KEYS[0])),
        memory_law=memory_law,
        optima=optima,
        facts=compare_answers(runs, probes),
        fact_multipliers=answer_multipliers(runs, probes),
        plots=draw(runs, fits, worth, profiles, memory_law, optima, extras, SPLIT),
    )


def fit_arms(runs: pd.DataFrame) -> Fits:
    """A law per key and arm in runtime parameters: in N where an arm has one number of tokens, in
    N and D where it has more.
    """
    return {
        (key, arm): fit_runs(runs[(runs["arm"] == arm) & runs[_loss(key)].notna()], key)
        for key in KEYS
        for arm in ordered_arms(runs)
        if runs.loc[runs["arm"] == arm, _loss(key)].notna().any()
    }


def fit_runs(own: pd.DataFrame, key: str) -> Fitted:
    """The law of one arm under one key."""
    law = find_law("saturating" if own["tokens"].nunique() == 1 else "chinchilla")
    return fit_with_intervals(law, _inputs(own), own[_loss(key)].to_numpy(dtype=float))


def _inputs(runs: pd.DataFrame) -> dict[str, np.ndarray]:
    columns = {"N": "n_runtime", "D": "tokens"}
    return {name: runs[column].to_numpy(dtype=float) for name, column in columns.items()}


def _profiles(runs: pd.DataFrame, arm: str, fitted: Fitted) -> list[Profile]:
    own = runs[(runs["arm"] == arm) & runs[_loss(KEYS[0])].notna()]
    return profiles_of(fitted.result, _inputs(own), own[_loss(KEYS[0])].to_numpy(dtype=float))


def _loss(key: str) -> str:
    return f"loss_{SPLIT}_{key}"
