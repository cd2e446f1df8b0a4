"""Every figure for which a grid varies what it shows."""

from collections.abc import Mapping

import pandas as pd

from analysis import figures, figures_gain, figures_law, figures_memory, figures_routing
from analysis.comparisons import Worth
from analysis.figures import Fits
from analysis.memory_law import MemoryLaw
from analysis.optima import Optima
from analysis.profile import Profile
from analysis.runs import main_budget
from analysis.style import Plot

SIZES = (
    ("n_fetched", "fetched memory M (parameters)", "gain_fetched"),
    ("n_bank", "bank W (parameters)", "gain_bank"),
    ("tokens_per_block_parameter", "training tokens per block parameter", "gain_tokens"),
)
KINDS = (("placement", "placement", "gain_placement"), ("memory_type", "memory type", "gain_type"))


def draw(
    runs: pd.DataFrame,
    fits: Fits,
    worth: Worth,
    profiles: Mapping[str, list[Profile]],
    memory_law: MemoryLaw | None,
    optima: Optima,
    extras: Mapping[str, pd.DataFrame],
    split: str,
) -> list[Plot]:
    """Figures in the order of the report."""
    plots = [figures.loss_against_n(runs, fits, split)]
    if (runs.groupby("arm")["tokens"].nunique() > 1).any():
        plots.append(figures.loss_against_d(runs, fits, split))
    if (runs["n_fetched"] > 0).any():
        plots += _of_memory(runs, worth, split)
    plots += _of_laws(runs, fits, profiles, memory_law, optima, split)
    if len(extras["probes"]):
        plots.append(figures_memory.recall_by_frequency(runs, extras["probes"]))
        plots.append(figures_memory.answer_loss_by_frequency(runs, extras["probes"]))
    if len(extras["blocking"]):
        plots.append(figures_memory.blocking_curve(runs, extras["blocking"]))
    if len(extras["curves"]):
        plots.append(figures.loss_curves(runs, extras["curves"]))
    return plots


def _of_memory(runs: pd.DataFrame, worth: Worth, split: str) -> list[Plot]:
    tokens = main_budget(runs)
    here = {name: table[table["tokens"] == tokens] for name, table in worth.items()}
    plots = [figures_memory.multiplier_by_arm(here)] if len(next(iter(here.values()))) else []
    plots.append(figures.loss_by_key(runs, split))
    at_budget, trained = runs[runs["tokens"] == tokens], "tokens_per_block_parameter"
    for column, words, name in SIZES:
        shown = runs if column == trained else at_budget
        if (figures_gain.gains(shown, split)[column] > 0).any():
            plots.append(figures_gain.gain_against(shown, split, column, words, name))
    for column, words, name in KINDS:
        if len(figures_gain.gains(figures_gain.comparable(runs, column), split)):
            plots.append(figures_gain.gain_by(runs, split, column, words, name))
    routed = figures_routing.routing_differences(at_budget, split)
    if routed["agreement"].nunique() > 1:
        plots.append(figures_routing.difference_by_agreement(routed))
    return plots


def _of_laws(
    runs: pd.DataFrame,
    fits: Fits,
    profiles: Mapping[str, list[Profile]],
    memory_law: MemoryLaw | None,
    optima: Optima,
    split: str,
) -> list[Plot]:
    plots = []
    if any(own.result.usable for (key, _), own in fits.items() if key == "prefix"):
        plots.append(figures.residuals(runs, fits, split))
    if known := next((found for found in profiles.values() if found), []):
        plots.append(figures_law.profiles(known))
    if len(optima.minima):
        dense = runs[(runs["memory_type"] == "none") & runs[f"loss_{split}_prefix"].notna()]
        columns = ("n_runtime", "train_flops", f"loss_{split}_prefix")
        plots.append(figures_law.isoflop_curves(dense, *columns, optima.minima))
    if len(optima.lowest):
        plots.append(figures_law.envelope_curve(optima.curves, optima.lowest))
    if memory_law and memory_law.frontier["n_anchor"].notna().any():
        plots.append(figures_law.frontier(memory_law.frontier))
    return plots
