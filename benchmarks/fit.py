"""Fitting speed beside the PyPI package `chinchilla` 0.2.0, in CPU seconds of one process.

    python -m pip install --no-deps --target PEER chinchilla==0.2.0 \\
        seaborn attrdictx ordinal ruamel.yaml
    OMP_NUM_THREADS=1 PYTHONPATH=.:PEER python benchmarks/fit.py

Both get the same 240 rows, the same 1,024 starts and the same objective (log-Huber, delta 1e-3,
double). The peer runs its own `fit` without worker processes and without its plots, twice: as
published, where BFGS stops at its default tolerance, and with its objective scaled as ours is, so
that a tolerance means the same for both. Ours are compiled before the clock starts.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from analysis.fit import TOLERANCE, fit, prepare
from analysis.intervals import bootstrap
from analysis.law import Floats
from analysis.memory_laws import find_law
from analysis.newton import derivatives, minimise_many
from analysis.objectives import find_objective

DELTA = 1e-3
AXES = {
    "e": np.linspace(-1, 1, 4),
    "a": np.linspace(1, 10, 4),
    "b": np.linspace(1, 10, 4),
    "alpha": np.linspace(0.1, 0.7, 4),
    "beta": np.linspace(0.1, 0.7, 4),
}
RESAMPLES = 4000
REPEATS = 3  # of ours; the peer's minute is run once


def table() -> tuple[dict[str, Floats], Floats]:
    """240 rows of Hoffmann's law with 1 % noise."""
    n, d = (
        a.ravel() for a in np.meshgrid(np.geomspace(5e7, 1e10, 16), np.geomspace(1e9, 5e11, 15))
    )
    clean = 1.69337368 + 406.401018 / n**0.33917084 + 410.722827 / d**0.2849083
    return {"N": n, "D": d}, clean * np.exp(np.random.default_rng(0).normal(0, 0.01, n.size))


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def objective(parameters: dict[str, float], x: dict[str, Floats], y: Floats) -> float:
    """The plain sum over rows."""
    residuals = np.log(y) - np.log(find_law("chinchilla").curve(parameters, x))
    return find_objective("log-huber", DELTA).total(residuals)


def peer(x: dict[str, Floats], y: Floats, scale: float) -> tuple[float, float]:
    """CPU seconds and objective of the peer's fit; its objective is multiplied by `scale`."""
    from chinchilla import core  # type: ignore[import-not-found]
    from chinchilla._metrics import log_huber  # type: ignore[import-not-found]

    core.DTYPE = np.float64
    loss = partial(log_huber, delta=DELTA)
    with tempfile.TemporaryDirectory() as folder:
        own = core.Chinchilla(
            folder, param_grid=AXES, loss_fn=lambda t, p: scale * loss(t, p), log_level=50
        )
        own.database.df = pd.DataFrame({"C": 6 * x["N"] * x["D"], **x, "loss": y})
        own.visualizer.optim = lambda *a, **k: None
        seconds, _ = cpu_seconds(lambda: own.fit(parallel=False))
    found = {name: float(getattr(own, name)) for name in ("E", "A", "B", "alpha", "beta")}
    return seconds, objective(found, x, y)


def ours(x: dict[str, Floats], y: Floats) -> tuple[float, float, int, float]:
    """CPU seconds, objective, starts at the tolerance, largest slope left at the best."""
    law, loss = find_law("chinchilla"), find_objective("log-huber", DELTA)
    grid = np.array(np.meshgrid(*AXES.values(), indexing="ij")).reshape(len(AXES), -1).T

    def work() -> tuple[Any, Floats, Floats, Floats]:
        prepared = prepare(law, x, y, loss)
        design = prepared.design
        phi_sp = np.array([design.to_phi(theta) for theta in grid])
        phi_sp = np.clip(phi_sp, design.lower_p, design.upper_p)
        bounds = (design.lower_p, design.upper_p)
        value_s, slope_s, _ = minimise_many(phi_sp, prepared.problem, DELTA, *bounds, TOLERANCE)
        return prepared, phi_sp, value_s, slope_s

    work()
    seconds, (prepared, phi_sp, value_s, slope_s) = min(
        (cpu_seconds(work) for _ in range(REPEATS)), key=lambda pair: pair[0]
    )
    best = phi_sp[int(value_s.argmin())]
    found = law.to_parameters(prepared.design.to_theta(best))
    left = float(np.abs(derivatives(best, prepared.problem, DELTA)[1]).max())
    return seconds, objective(found, x, y), int((slope_s <= TOLERANCE).sum()), left


def refits(x: dict[str, Floats], y: Floats) -> float:
    """CPU seconds of the bootstrap."""
    result = fit(find_law("chinchilla"), x, y)
    bootstrap(result, x, y, resamples=2)
    return cpu_seconds(lambda: bootstrap(result, x, y, RESAMPLES))[0]


def main() -> None:
    x, y = table()
    seconds, value, converged, left = ours(x, y)
    starts = np.prod([len(axis) for axis in AXES.values()])
    each = 1e3 * seconds / starts
    print(f"memscale: {seconds:.3f} CPU s, {each:.3f} ms a start, objective {value:.9e}")
    print(f"  {converged} of {starts} starts within slope {TOLERANCE:g}; at the best {left:.1g}")
    print(f"  {RESAMPLES} bootstrap refits: {refits(x, y):.2f} CPU s")
    scaled = 1 / DELTA**2  # of the peer's mean over rows: then both minimise one function
    for words, scale in (("as published", 1.0), ("objective scaled as ours", scaled)):
        try:
            peer_seconds, peer_value = peer(x, y, scale)
        except ImportError:
            print("chinchilla is not on PYTHONPATH; how to get it stands at the top of this file")
            return
        each = 1e3 * peer_seconds / starts
        print(f"chinchilla 0.2.0, {words}: {peer_seconds:.1f} CPU s, {each:.1f} ms a start")
        print(f"  objective {peer_value:.9e}, {peer_value / value - 1:+.2e} relative to ours")
        print(f"  ratio of CPU seconds {peer_seconds / seconds:.0f}")


if __name__ == "__main__":
    main()
