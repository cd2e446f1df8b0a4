"""Intervals of a fit: bootstrap over configurations, with corrected percentiles."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from analysis.fit import TOLERANCE, Prepared, prepare
from analysis.law import Floats, Table
from analysis.newton import minimise_reweighted
from analysis.result import FitResult, FitStatus, Interval

RESAMPLES = 1000
LEVEL = 0.95
# With fewer configurations left over than this, a resample is all but the sample.
LEAST_FREE = 2
METHOD = "bootstrap over configurations, bias-corrected percentiles at Student's quantiles"


@dataclass(frozen=True)
class Bootstrap:
    """Refitted parameters, one row a resample, in the order of the law's coordinates."""

    result: FitResult
    theta_bp: Floats
    failed: int  # resamples that did not converge, left out

    def interval(
        self, statistic: Callable[[dict[str, float]], float], level: float = LEVEL
    ) -> Interval:
        """Of any function of the parameters."""
        law = self.result.law
        values = np.array([statistic(law.to_parameters(theta)) for theta in self.theta_bp])
        estimate = statistic(dict(self.result.parameters))
        n, p = self.result.configurations, len(law.parameters)
        return corrected(values, estimate, n, p, level)


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
        prepared.design.lower_p,
        prepared.design.upper_p,
        TOLERANCE,
    )
    good_b = slope_b <= 1e3 * TOLERANCE
    theta_bp = prepared.design.to_theta(phi_bp[good_b].T).T
    return Bootstrap(result, theta_bp, int((~good_b).sum()))


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
    """The result with an interval for every parameter, or with a note that there is none."""
    if boot is None or not len(boot.theta_bp):
        return replace(
            result, notes=(*result.notes, "no intervals: too few configurations or no fit")
        )
    intervals = {
        name: boot.interval(lambda parameters, name=name: parameters[name], level)  # type: ignore[misc]
        for name in result.law.parameters
    }
    lost = (f"{boot.failed} resamples did not converge",) if boot.failed else ()
    return replace(result, intervals=intervals, notes=(*result.notes, *lost))
