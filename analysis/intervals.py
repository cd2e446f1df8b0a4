"""Intervals of a fit: bootstrap over configurations, with corrected percentiles."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from analysis.fit import STARTS, TOLERANCE, Prepared, fit, prepare
from analysis.law import Floats, Law, Table
from analysis.newton import minimise_reweighted
from analysis.objectives import Objective
from analysis.result import FitResult, FitStatus, Interval

RESAMPLES = 1000
BAND_DRAWS = 300
LEVEL = 0.95
# With fewer configurations left over than this, a resample is all but the sample.
LEAST_FREE = 2
# A refit that leaves more slope than this has not converged. If more refits than this share have
# not, there is no interval: those that have are a choice, and the hard ones lie far out.
SLOPE_LEFT, MOST_FAILED = 1e3 * TOLERANCE, 0.02
METHOD = "bootstrap over configurations, bias-corrected percentiles at Student's quantiles"


@dataclass(frozen=True)
class Bootstrap:
    """Refitted parameters, one row a resample, in the order of the law's coordinates.

    The few that did not converge count where they stopped; if they are more, there are no rows.
    """

    result: FitResult
    theta_bp: Floats
    resamples: int
    failed: int

    def interval(
        self, statistic: Callable[[dict[str, float]], float], level: float = LEVEL
    ) -> Interval:
        """Of any function of the parameters."""
        law = self.result.law
        values = np.array([statistic(law.to_parameters(theta)) for theta in self.theta_bp])
        estimate = statistic(dict(self.result.parameters))
        n, p = self.result.configurations, len(law.parameters)
        return corrected(values, estimate, n, p, level)


@dataclass(frozen=True)
class Fitted:
    """A fit with its intervals, and the refits that they are from; None where there are none."""

    result: FitResult
    boot: Bootstrap | None

    def band(self, x: Table) -> tuple[Floats, Floats] | None:
        """Low and high predictions [n] over refits, at LEVEL; None where there are no refits."""
        if self.boot is None or not len(self.boot.theta_bp):
            return None
        law = self.result.law
        thetas = self.boot.theta_bp[:BAND_DRAWS]
        draws = [law.curve(law.to_parameters(theta), x) for theta in thetas]
        low_n, high_n = np.quantile(draws, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0)
        return low_n, high_n

    def new_run(self, x: Table) -> tuple[Floats, Floats] | None:
        """Low and high loss [n] of one run at x that the fit was not shown, at LEVEL.

        Two spreads add in squares: of the refits, half between their quantiles at one standard
        deviation (their tails are heavy), and of runs about the curve. That the law holds at x is
        taken for granted. None where there are no refits. Coverage is tested.
        """
        if self.boot is None or not len(self.boot.theta_bp):
            return None
        law, linear = self.result.law, self.result.objective.linear
        draws = [law.curve(law.to_parameters(theta), x) for theta in self.boot.theta_bp]
        unit, back = (np.asarray, np.asarray) if linear else (np.log, np.exp)
        low_n, high_n = np.quantile(unit(draws), stats.norm.cdf([-1, 1]), axis=0)
        noise = np.sum(self.result.residuals**2) / (self.result.n - len(law.parameters))
        wide_n = stats.norm.ppf((1 + LEVEL) / 2) * np.hypot((high_n - low_n) / 2, np.sqrt(noise))
        expected_n = unit(self.result.predict(x))
        return back(expected_n - wide_n), back(expected_n + wide_n)


def fit_with_intervals(
    law: Law,
    x: Table,
    y: Floats,
    objective: Objective | None = None,
    starts: int = STARTS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Fitted:
    """`fit`, `bootstrap` and `with_intervals` in one."""
    result = fit(law, x, y, objective, starts)
    boot = bootstrap(result, x, y, resamples, seed)
    return Fitted(with_intervals(result, boot), boot)


def corrected(
    values_b: Floats, estimate: float, n: int, parameters: int, level: float = LEVEL
) -> Interval:
    """Bias-corrected percentiles (Efron 1987) at Student's quantiles.

    The plain percentile interval is off where the draws do not lie about the estimate, as those of
    factors and floors do not, and treats the noise as known. Student's t widens it for the n - p
    configurations that estimate the noise. Coverage is tested, for every parameter.
    """
    below = float(np.mean(values_b < estimate))
    edge = 1 / len(values_b)
    bias = float(stats.norm.ppf(np.clip(below, edge, 1 - edge)))
    tail = float(stats.t.ppf((1 - level) / 2, n - parameters))
    shares = stats.norm.cdf([2 * bias + tail, 2 * bias - tail])
    low, high = np.quantile(values_b, np.asarray(shares))
    return Interval(float(low), float(high), level, METHOD)


def bootstrap(
    result: FitResult, x: Table, y: Floats, resamples: int = RESAMPLES, seed: int = 0
) -> Bootstrap | None:
    """Refit resampled configurations, each with all its seeds. None where that says nothing."""
    free = result.configurations - len(result.law.parameters)
    unusable = (FitStatus.NOT_CONVERGED, FitStatus.NOT_ENOUGH_DATA, FitStatus.FLAT)
    if free < LEAST_FREE or result.status in unusable:
        return None
    prepared = prepare(result.law, x, y, result.objective)
    times_bn = _resample(prepared, len(result.law.parameters), resamples, seed)
    phi_bp, slope_b = minimise_reweighted(
        prepared.design.to_phi(result.theta),
        prepared.problem,
        times_bn,
        prepared.objective.delta,
        prepared.design.bounds,
        TOLERANCE,
    )
    failed = int(np.sum(~(slope_b <= SLOPE_LEFT)))
    kept_bp = phi_bp if failed <= MOST_FAILED * resamples else phi_bp[:0]
    return Bootstrap(result, prepared.design.to_theta(kept_bp.T).T, resamples, failed)


def _resample(prepared: Prepared, parameters: int, resamples: int, seed: int) -> Floats:
    """How often each row counts [resamples, n]; draws with too few distinct configurations are
    redrawn.
    """
    rng = np.random.default_rng(seed)
    groups = prepared.configurations
    times_bg = np.empty((resamples, groups))
    for b in range(resamples):
        while True:
            times_bg[b] = np.bincount(rng.integers(groups, size=groups), minlength=groups)
            if np.count_nonzero(times_bg[b]) >= parameters:
                break
    return np.ascontiguousarray(times_bg[:, prepared.configuration_n])


def with_intervals(result: FitResult, boot: Bootstrap | None, level: float = LEVEL) -> FitResult:
    """The result with an interval for every parameter, or with why there is none.

    A converged fit whose refits did not converge becomes UNSTABLE.
    """
    if boot is None:
        return replace(
            result, notes=(*result.notes, "no intervals: too few configurations or no fit")
        )
    lost = f"{boot.failed} of {boot.resamples} bootstrap refits did not converge"
    if not len(boot.theta_bp):
        if result.converged:
            return replace(result, status=FitStatus.UNSTABLE, reason=f"{lost}: no intervals")
        return replace(result, notes=(*result.notes, f"no intervals: {lost}"))
    intervals = {
        name: boot.interval(lambda parameters, name=name: parameters[name], level)  # type: ignore[misc]
        for name in result.law.parameters
    }
    notes = (*result.notes, lost) if boot.failed else result.notes
    return replace(result, intervals=intervals, notes=notes)
