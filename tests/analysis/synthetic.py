"""Truths that synthetic tables are made from, and where published tables lie."""

from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[1] / "data" / "scaling_laws"
# arXiv 2203.15556.
HOFFMANN = {
    "E": 1.69337368,
    "A": 406.401018,
    "B": 410.722827,
    "alpha": 0.33917084,
    "beta": 0.2849083,
}
TRUTHS = {
    "saturating": {"E": 1.7, "A": 400.0, "alpha": 0.34},
    "chinchilla": HOFFMANN,
    "tied": {"A": 166.2, "B": 366.7, "eta": -0.27, "E": 1.84},
    "kaplan": {"N_c": 8.8e13, "D_c": 5.4e13, "alpha_N": 0.076, "alpha_D": 0.095},
    "power": {"k": 0.1, "p": 0.5},
    "memory-parameters": {**HOFFMANN, "kappa": 0.8, "omega": 0.25},
    "memory-additive": {**HOFFMANN, "T": 0.3, "kappa": 2e-8, "omega": 0.3},
    "memory-data": {**HOFFMANN, "kappa": 1.5, "omega": 0.3},
}


def spread(rows: int = 80) -> dict[str, np.ndarray]:
    """Inputs that do not move together; a fifth of the rows has no memory."""
    rng = np.random.default_rng(5)
    x = {
        "N": np.exp(rng.uniform(np.log(4e7), np.log(1e10), rows)),
        "D": np.exp(rng.uniform(np.log(1e9), np.log(3e11), rows)),
        "M": np.exp(rng.uniform(np.log(1e6), np.log(1e9), rows)),
        "C": np.exp(rng.uniform(40, 50, rows)),
    }
    x["W"] = x["M"] * np.exp(rng.uniform(0, np.log(500), rows))
    for name in ("M", "W"):
        x[name][: rows // 5] = 0.0
    return x
