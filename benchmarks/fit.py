"""Fitting speed beside the PyPI package `chinchilla` 0.2.0, in CPU seconds of one process.

    python -m pip install --no-deps --target PEER chinchilla==0.2.0 \\
        seaborn attrdictx ordinal ruamel.yaml
    OMP_NUM_THREADS=1 PYTHONPATH=.:PEER python benchmarks/fit.py

Both get the same 240 rows, the same 1,024 starts and the same objective (log-Huber, delta 1e-3,
double). The peer runs its own `fit` without worker processes and without its plots. BFGS ends a
start when no slope of its mean objective exceeds 1e-5, and that objective is itself about 1e-5, so
there are two comparisons at equal tolerance: at the peer's own, loose one, and, with the objective
of both divided by delta^2, at a tight one (on 32 starts: the peer takes long). Ours is compiled
before the clock starts.
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
from analysis.newton import minimise_many
from analysis.objectives import find_objective

DELTA = 1e-3
AXES: dict[str, Floats] = {
    "e": np.linspace(-1, 1, 4),
    "a": np.linspace(1, 10, 4),
    "b": np.linspace(1, 10, 4),
    "alpha": np.linspace(0.1, 0.7, 4),
    "beta": np.linspace(0.1, 0.7, 4),
}
PEER_TOLERANCE = 1e-5  # scipy's default for BFGS, which the peer uses
RESAMPLES = 4000
Columns = dict[str, Floats]
Axes = dict[str, Floats]
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


def objective(parameters: dict[str, float], x: Columns, y: Floats) -> float:
    """The plain sum over rows."""
    residuals = np.log(y) - np.log(find_law("chinchilla").curve(parameters, x))
    return find_objective("log-huber", DELTA).total(residuals)


def peer(x: Columns, y: Floats, axes: Axes, scale: float) -> tuple[float, float]:
    """CPU seconds and objective of the peer's fit; its mean objective is multiplied by `scale`."""
    from chinchilla import core  # type: ignore[import-not-found]
    from chinchilla._metrics import log_huber  # type: ignore[import-not-found]

    core.DTYPE = np.float64
    loss = partial(log_huber, delta=DELTA)
    with tempfile.TemporaryDirectory() as folder:
        own = core.Chinchilla(
            folder, param_grid=axes, loss_fn=lambda t, p: scale * loss(t, p), log_level=50
        )
        own.database.df = pd.DataFrame({"C": 6 * x["N"] * x["D"], **x, "loss": y})
        own.visualizer.optim = lambda *a, **k: None
        seconds, _ = cpu_seconds(lambda: own.fit(parallel=False))
    found = {name: float(getattr(own, name)) for name in ("E", "A", "B", "alpha", "beta")}
    return seconds, objective(found, x, y)


def ours(x: Columns, y: Floats, axes: Axes, tolerance: float) -> tuple[float, float, float]:
    """CPU seconds, objective, and the share of starts that ended within the tolerance.

    `tolerance` is for slopes of the mean objective over delta^2; the best start is then finished.
    """
    law, loss = find_law("chinchilla"), find_objective("log-huber", DELTA)
    grid = np.array(np.meshgrid(*axes.values(), indexing="ij")).reshape(len(axes), -1).T

    def work() -> tuple[dict[str, float], Floats]:
        prepared = prepare(law, x, y, loss)
        design, q = prepared.design, prepared.problem
        phi_sp = np.array([design.to_phi(theta) for theta in grid])
        phi_sp = np.clip(phi_sp, *design.bounds)
        value_s, slope_s, _ = minimise_many(phi_sp, q, DELTA, design.bounds, tolerance)
        best = phi_sp[[int(value_s.argmin())]]
        minimise_many(best, q, DELTA, design.bounds, TOLERANCE)
        return law.to_parameters(design.to_theta(best[0])), slope_s

    work()
    seconds, (found, slope_s) = min(
        (cpu_seconds(work) for _ in range(REPEATS)), key=lambda pair: pair[0]
    )
    return seconds, objective(found, x, y), float(np.mean(slope_s <= tolerance))


def refits(x: Columns, y: Floats) -> float:
    """CPU seconds of the bootstrap."""
    result = fit(find_law("chinchilla"), x, y)
    bootstrap(result, x, y, resamples=2)
    return cpu_seconds(lambda: bootstrap(result, x, y, RESAMPLES))[0]


def compare(x: Columns, y: Floats, axes: Axes, words: str, scale: float) -> None:
    """Both at the peer's tolerance on its mean objective times `scale`."""
    starts = np.prod([len(axis) for axis in axes.values()])
    tolerance = PEER_TOLERANCE / (scale * DELTA**2)
    seconds, value, share = ours(x, y, axes, tolerance)
    print(f"{words}: {starts} starts")
    each = 1e3 * seconds / starts
    print(f"  memscale    {seconds:8.3f} CPU s  {each:7.3f} ms a start  objective {value:.9e}")
    print(f"              {share:.1%} of the starts within the tolerance")
    peer_seconds, peer_value = peer(x, y, axes, scale)
    each = 1e3 * peer_seconds / starts
    cost = f"{peer_seconds:8.3f} CPU s  {each:7.3f} ms a start"
    print(f"  chinchilla  {cost}  objective {peer_value:.9e}")
    print(f"  ratio of CPU seconds {peer_seconds / seconds:.0f}")


def main() -> None:
    x, y = table()
    print(f"{RESAMPLES} bootstrap refits: {refits(x, y):.2f} CPU s")
    seconds, _, share = ours(x, y, AXES, TOLERANCE)
    print(f"1024 starts to slope {TOLERANCE:g}: {seconds:.3f} CPU s, {share:.1%} there")
    try:
        compare(x, y, AXES, "at the peer's tolerance", 1.0)
        few = {name: axis[1:3] for name, axis in AXES.items()}
        compare(x, y, few, "at a tight tolerance", 1 / DELTA**2)
    except ImportError:
        print("chinchilla is not on PYTHONPATH; how to get it stands at the top of this file")


if __name__ == "__main__":
    main()
