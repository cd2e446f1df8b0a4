"""Variable projection and profiles."""

import numpy as np
import pytest

from analysis import varpro
from analysis.fit import fit, prepare, start_points
from analysis.memory_laws import LAWS, find_law
from analysis.objectives import find_objective
from analysis.profile import profile
from core.errors import InputError
from tests.analysis.synthetic import TRUTHS, spread

SQUARES = find_objective("squares")


@pytest.mark.parametrize("name", ["saturating", "chinchilla", "tied", "memory-parameters"])
def test_projection_alone_reaches_the_truth(name: str) -> None:
    law = LAWS[name]
    x = spread()
    prepared = prepare(law, x, law.curve(TRUTHS[name], x), SQUARES)
    assert varpro.applies(prepared.design, prepared.problem, SQUARES.delta)
    found = [
        prepared.design.to_theta(varpro.project(prepared.design, prepared.problem, start))
        for start in start_points(prepared.design, 4)
    ]
    error = min(
        max(abs(law.to_parameters(theta)[k] / v - 1) for k, v in TRUTHS[name].items())
        for theta in found
    )
    assert error < 1e-4


def test_projection_jacobian_against_finite_differences_where_residuals_vanish() -> None:
    """Kaufman's Jacobian drops a term that is proportional to the residual."""
    law = LAWS["chinchilla"]
    x = spread()
    prepared = prepare(law, x, law.curve(TRUTHS["chinchilla"], x), SQUARES)
    truth = prepared.design.to_phi(law.to_coordinates(TRUTHS["chinchilla"]))
    search = varpro._Search(prepared.problem, [0, 1, 2], [3, 4], truth)
    at, step = truth[[3, 4]], 1e-5
    numeric = np.column_stack(
        [
            (search.residuals(at + e) - search.residuals(at - e)) / (2 * step)
            for e in step * np.eye(2)
        ]
    )
    np.testing.assert_allclose(
        search.jacobian(at), numeric, rtol=1e-4, atol=1e-4 * np.abs(numeric).max()
    )


@pytest.mark.parametrize("objective", ["log-squares", "squares", "asymmetric"])
def test_projection_is_for_squares_of_y_only(objective: str) -> None:
    prepared = prepare(LAWS["saturating"], spread(), np.full(80, 3.0), find_objective(objective))
    delta = prepared.objective.delta
    assert varpro.applies(prepared.design, prepared.problem, delta) == (objective == "squares")


def test_profile_of_a_line_is_students_interval() -> None:
    """log y = log k + p log C is linear: the F test's interval is the t interval."""
    law, x = find_law("power"), spread(30)
    y = law.curve(TRUTHS["power"], x) * np.exp(np.random.default_rng(1).normal(0, 0.01, 30))
    result = fit(law, x, y, find_objective("log-squares"))
    own = profile(result, x, y, "p")
    centred = np.log(x["C"]) - np.log(x["C"]).mean()
    error = np.sqrt((result.residuals**2).sum() / 28 / (centred**2).sum())
    half = 2.0484 * error  # t quantile, 28 degrees of freedom
    assert own.interval.low == pytest.approx(result.parameters["p"] - half, rel=1e-5)
    assert own.interval.high == pytest.approx(result.parameters["p"] + half, rel=1e-5)


@pytest.mark.parametrize("name", ["E", "A", "alpha"])
def test_profile_rises_on_both_sides_of_the_estimate(name: str) -> None:
    law, x = find_law("chinchilla"), spread(60)
    y = law.curve(TRUTHS["chinchilla"], x) * np.exp(np.random.default_rng(2).normal(0, 0.01, 60))
    result = fit(law, x, y)
    own = profile(result, x, y, name)
    assert not own.flat
    assert own.interval.low < result.parameters[name] < own.interval.high
    assert own.rise_n.min() >= -1e-9


def test_a_flat_profile_says_so() -> None:
    """Memory in one row of eighty, and next to nothing there: kappa has no upper limit of use."""
    law, x = find_law("memory-data"), spread()
    for name in ("M", "W"):
        x[name][:] = 0.0
        x[name][0] = 1.0
    y = law.curve(TRUTHS["memory-data"], x)
    result = fit(law, x, y * np.exp(np.random.default_rng(0).normal(0, 0.01, 80)), starts=16)
    assert not result.converged
    assert profile(result, x, y, "kappa").flat


def test_kaplans_law_has_no_profile_of_a_derived_parameter() -> None:
    law, x = find_law("kaplan"), spread()
    y = law.curve(TRUTHS["kaplan"], x)
    with pytest.raises(InputError, match="other coordinates"):
        profile(fit(law, x, y), x, y, "N_c")
