"""Given a budget: how much of it to anchor, fetched memory, bank and tokens."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.intervals import Bootstrap
from analysis.law import Floats, Law
from analysis.result import FitResult
from core.errors import InputError

BYTES = 2  # a parameter, in bf16
FLOPS_PER_PARAMETER = 6  # a token, forward and backward: arXiv 2001.08361, 2.1
SIZES, SHARES, BLOCKS = 121, 81, 25
LARGEST_SHARE = 0.95  # of fetched memory in the runtime parameters
DRAWS = 300


@dataclass(frozen=True)
class Budget:
    """Limits; infinite where there is none. `tokens` fixes D instead of training FLOPs bounding
    it.
    """

    flops: float = math.inf
    tokens: float = math.nan
    ram_bytes: float = math.inf  # anchor and fetched memory
    flash_bytes: float = math.inf  # the bank


@dataclass(frozen=True)
class Plan:
    """Best split, with intervals over bootstrap draws; `notes` say where it leaves the measured
    range.
    """

    N: float
    M: float
    W: float
    D: float
    loss: float
    intervals: Mapping[str, tuple[float, float]]
    notes: tuple[str, ...]


def plan(
    result: FitResult, budget: Budget, measured: Mapping[str, Floats], boot: Bootstrap | None = None
) -> Plan:
    """The split with the lowest predicted loss under `budget`; `measured` holds the fitted columns.

    Raises InputError where the budget leaves something without a limit, or the fit has no
    parameters.
    """
    if not result.usable:
        raise InputError(f"no plan without a fit: {result.describe()}")
    candidates = _candidates(result.law, budget, measured)
    best = _best(result.law, result.parameters, candidates)
    draws = [_best(result.law, p, candidates) for p in _draws(result.law, boot)]
    intervals = {
        name: (_quantile(draws, name, 0.025), _quantile(draws, name, 0.975))
        for name in (*candidates, "loss")
        if draws
    }
    return Plan(**best, intervals=intervals, notes=_notes(best, measured, result))


def _candidates(law: Law, budget: Budget, measured: Mapping[str, Floats]) -> dict[str, Floats]:
    """Every split of a grid over runtime size, share of memory in it, and blocks in the bank."""
    memory = "M" in law.inputs
    bounded = math.isfinite(budget.flops) or math.isfinite(budget.tokens)
    if not bounded:
        raise InputError(
            "give training FLOPs or the number of tokens: without, more data is always better"
        )
    if math.isfinite(budget.tokens) and not (
        math.isfinite(budget.ram_bytes) or math.isfinite(budget.flops)
    ):
        raise InputError(
            "give RAM or training FLOPs beside tokens: without, a larger model is always better"
        )
    if memory and not math.isfinite(budget.flash_bytes):
        raise InputError(
            "give bytes on flash for the bank: without, a larger bank is always better"
        )
    most = min(budget.ram_bytes / BYTES, _largest_size(budget, measured))
    runtime = np.geomspace(min(float(np.min(measured["N"])) / 10, most / 2), most, SIZES)
    share = (
        np.concatenate([[0.0], np.geomspace(1e-3, LARGEST_SHARE, SHARES)])
        if memory
        else np.zeros(1)
    )
    blocks = np.geomspace(1.0, 1e5, BLOCKS) if memory else np.ones(1)
    size, part, times = (a.ravel() for a in np.meshgrid(runtime, share, blocks, indexing="ij"))
    fetched = size * part
    bank = np.minimum(fetched * times, budget.flash_bytes / BYTES if memory else 0.0)
    fits = bank >= fetched
    size, fetched, bank = size[fits], fetched[fits], bank[fits]
    tokens = np.full(size.size, budget.tokens)
    if math.isfinite(budget.flops):
        affordable = budget.flops / (FLOPS_PER_PARAMETER * size)
        tokens = affordable if math.isnan(budget.tokens) else tokens
        keep = tokens <= affordable * (1 + 1e-9)
        size, fetched, bank, tokens = size[keep], fetched[keep], bank[keep], tokens[keep]
    return {"N": size - fetched, "M": fetched, "W": bank, "D": tokens}


def _largest_size(budget: Budget, measured: Mapping[str, Floats]) -> float:
    """By FLOPs: no larger than leaves one token a parameter."""
    if not math.isfinite(budget.flops):
        return math.inf
    if math.isfinite(budget.tokens):
        return budget.flops / (FLOPS_PER_PARAMETER * budget.tokens)
    return math.sqrt(budget.flops / FLOPS_PER_PARAMETER)


def _best(
    law: Law, parameters: Mapping[str, float], candidates: dict[str, Floats]
) -> dict[str, float]:
    loss = law.curve(parameters, candidates)
    i = int(np.argmin(loss))
    return {name: float(values[i]) for name, values in candidates.items()} | {
        "loss": float(loss[i])
    }


def _draws(law: Law, boot: Bootstrap | None) -> list[dict[str, float]]:
    return [law.to_parameters(theta) for theta in boot.theta_bp[:DRAWS]] if boot else []


def _quantile(draws: list[dict[str, float]], name: str, level: float) -> float:
    return float(np.quantile([draw[name] for draw in draws], level))


def _notes(
    best: Mapping[str, float], measured: Mapping[str, Floats], result: FitResult
) -> tuple[str, ...]:
    """Where the plan is an extrapolation, and whether the fit can carry it."""
    notes = [] if result.converged else [f"the fit is not to be trusted: {result.describe()}"]
    for name, value in best.items():
        if name not in measured:
            continue
        known = np.asarray(measured[name])[np.asarray(measured[name]) > 0]
        if value > 0 and len(known) and not known.min() <= value <= known.max():
            span = f"{known.min():.3g} to {known.max():.3g}"
            notes.append(f"{name} {value:.3g} lies outside the measured {span}")
    return tuple(notes)


def iso_loss(
    law: Law,
    parameters: Mapping[str, float],
    loss: float,
    fetched: Floats,
    blocks: float,
    tokens: float,
) -> Floats:
    """Anchor sizes that reach `loss` with each amount of fetched memory; NaN where none does."""
    grid = np.geomspace(1e3, 1e13, 2001)
    out = []
    for m in fetched:
        shape = np.ones(grid.size)
        x = {"N": grid, "M": m * shape, "W": m * blocks * shape, "D": tokens * shape}
        values = law.curve(parameters, x)
        inside = values[-1] <= loss <= values[0]
        out.append(
            float(np.exp(np.interp(-loss, -values, np.log(grid)))) if inside else float("nan")
        )
    return np.array(out)
