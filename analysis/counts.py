"""Which N: the parameter counts that a law can be fitted in. Exponents move with the choice."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from analysis.fit import fit
from analysis.law import Floats
from analysis.memory_laws import find_law
from core.errors import InputError

Counter = Callable[[pd.DataFrame], "pd.Series[float]"]
COUNTS: dict[str, tuple[str, Counter]] = {
    "anchor": ("anchor", lambda r: r["n_anchor"]),
    "anchor+embed": ("anchor and embeddings", lambda r: r["n_anchor"] + r["n_embed"]),
    "runtime": ("anchor and fetched memory", lambda r: r["n_anchor"] + r["n_fetched"]),
    "runtime+embed": (
        "anchor, fetched memory and embeddings",
        lambda r: r["n_anchor"] + r["n_fetched"] + r["n_embed"],
    ),
    "anchor+bank": ("anchor and the whole bank", lambda r: r["n_anchor"] + r["n_bank"]),
}


def count(runs: pd.DataFrame, name: str) -> Floats:
    """N of every run under a choice. Raises InputError for a name that is none."""
    if name not in COUNTS:
        raise InputError(f"count '{name}' is unknown; choose one of: {', '.join(COUNTS)}")
    return np.asarray(COUNTS[name][1](runs), dtype=float)


def exponents(runs: pd.DataFrame, loss: str) -> pd.DataFrame:
    """A fit per arm and choice of N, with how far the exponent moves.

    Columns: arm, count, words, law, alpha, beta (NaN where the tokens are one number), status.
    """
    rows = []
    for arm, own in runs[runs[loss].notna()].groupby("arm", sort=True):
        one_budget = own["tokens"].nunique() == 1
        law = find_law("saturating" if one_budget else "chinchilla")
        for name, (words, _) in COUNTS.items():
            x = {"N": count(own, name), "D": own["tokens"].to_numpy(dtype=float)}
            result = fit(law, x, own[loss].to_numpy(dtype=float))
            rows.append(
                {
                    "arm": arm,
                    "count": name,
                    "words": words,
                    "law": law.name,
                    "alpha": result.parameters["alpha"],
                    "beta": result.parameters.get("beta", float("nan")),
                    "status": result.describe(),
                }
            )
    return pd.DataFrame(rows)
