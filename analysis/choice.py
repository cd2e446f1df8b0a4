"""Which law: ranked by what it predicts and was not shown, never by how well it fits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.fit import fit
from analysis.law import Floats, Law, Table
from analysis.objectives import Objective

FOLDS, STARTS = 5, 64
RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Choice:
    """`table`: law, error, folds' error, status, best first. `margin` of the best over the next.

    Errors are means over held-out configurations of |log measured - log predicted|. The interval
    of the margin is a bootstrap over held-out configurations; `verdict` says whether it excludes
    nought.
    """

    table: pd.DataFrame
    margin: float
    low: float
    high: float
    verdict: str


def choose(
    laws: Sequence[Law],
    x: Table,
    y: Floats,
    held_out: Floats,
    objective: Objective | None = None,
    seed: int = 0,
) -> Choice:
    """Rank laws on the rows where `held_out` is true (the largest sizes or budgets), and by folds.

    A law that cannot be fitted to the rest ranks last. Configurations with several seeds count
    once.
    """
    held = np.asarray(held_out, dtype=bool)
    configuration_n = _configurations(laws, x)
    rows, errors = [], {}
    for law in laws:
        error_n, status = _errors(law, x, y, held, objective)
        errors[law.name] = _per_configuration(error_n, configuration_n[held])
        folds = _cross_validate(law, x, y, configuration_n, objective, seed)
        mean = float(np.mean(errors[law.name]))
        rows.append({"law": law.name, "error": mean, "folds_error": folds, "status": status})
    table = pd.DataFrame(rows).sort_values("error", kind="stable", ignore_index=True)
    if len(table) < 2 or not np.isfinite(errors[str(table.loc[1, "law"])]).all():
        return Choice(
            table, float("nan"), float("nan"), float("nan"), "only one law could be fitted"
        )
    best, second = str(table.loc[0, "law"]), str(table.loc[1, "law"])
    return _compare(table, best, second, errors[second] - errors[best], seed)


def largest(x: Floats, share: float = 0.25) -> Floats:
    """True for the rows with the largest distinct values of x, about `share` of the values, at
    least one.
    """
    values = np.unique(x)
    count = max(1, round(share * len(values)))
    return np.asarray(x >= values[-count])


def _compare(table: pd.DataFrame, best: str, second: str, gain_c: Floats, seed: int) -> Choice:
    rng = np.random.default_rng(seed)
    draws = gain_c[rng.integers(len(gain_c), size=(RESAMPLES, len(gain_c)))].mean(axis=1)
    low, high = (float(q) for q in np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    clear = low > 0
    verdict = f"{best} predicts better than {second}" if clear else "the data cannot tell"
    return Choice(table, float(gain_c.mean()), low, high, verdict)


def _configurations(laws: Sequence[Law], x: Table) -> Floats:
    names = sorted({name for law in laws for name in law.inputs})
    inputs = np.column_stack([np.asarray(x[name], dtype=float) for name in names])
    return np.asarray(np.unique(inputs, axis=0, return_inverse=True)[1].ravel())


def _errors(
    law: Law, x: Table, y: Floats, held: Floats, objective: Objective | None
) -> tuple[Floats, str]:
    """Absolute log errors on the held rows of a fit to the others; infinite where there is no
    fit.
    """
    rest = ~np.asarray(held, dtype=bool)
    result = fit(law, {k: np.asarray(v)[rest] for k, v in x.items()}, y[rest], objective, STARTS)
    if not result.usable:
        return np.full(int((~rest).sum()), np.inf), result.describe()
    prediction = result.predict({k: np.asarray(v)[~rest] for k, v in x.items()})
    return np.abs(np.log(y[~rest]) - np.log(prediction)), result.describe()


def _cross_validate(
    law: Law, x: Table, y: Floats, configuration_n: Floats, objective: Objective | None, seed: int
) -> float:
    """Mean error over configurations, each left out once with all its seeds."""
    order = np.random.default_rng(seed).permutation(int(configuration_n.max()) + 1)
    fold_n = (order % FOLDS)[configuration_n.astype(int)]
    errors = [
        _per_configuration(
            _errors(law, x, y, fold_n == fold, objective)[0], configuration_n[fold_n == fold]
        )
        for fold in range(FOLDS)
        if (fold_n == fold).any()
    ]
    return float(np.mean(np.concatenate(errors)))


def _per_configuration(error_n: Floats, configuration_n: Floats) -> Floats:
    return np.asarray(pd.Series(error_n).groupby(configuration_n).mean(), dtype=float)
