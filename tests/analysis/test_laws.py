"""Every law: its terms against its plain formula, its derivatives against finite differences."""

import numpy as np
import pytest

from analysis.design import build_design
from analysis.evaluation import derivatives, term_shares
from analysis.kernels import Problem
from analysis.law import Law
from analysis.memory_laws import LAWS
from analysis.objectives import Objective, find_objective

OBJECTIVES = [
    find_objective("log-huber", 1e-2),
    find_objective("log-squares"),
    find_objective("squares"),
    find_objective("asymmetric", 1e-2, 0.3),
]


def table(law: Law, rows: int = 40) -> dict[str, np.ndarray]:
    """Inputs that vary on their own; memory inputs are zero in some rows."""
    rng = np.random.default_rng(3)
    scale = {"N": 1e8, "D": 1e10, "M": 1e7, "W": 1e9}
    x = {name: scale.get(name, 1e3) * np.exp(rng.normal(0, 1.2, rows)) for name in law.inputs}
    if "M" in law.may_be_zero:
        x["W"] = np.maximum(x["W"], x["M"])
        for name in law.may_be_zero:
            x[name][:10] = 0.0
    return x


def problem(law: Law, objective: Objective) -> tuple[Problem, np.ndarray]:
    x = table(law)
    y = 3 + np.random.default_rng(4).normal(0, 0.3, 40)
    design = build_design(law, x, y)
    low_p, high_p = design.start_box
    return design.under(objective, y, np.ones(40)), low_p + 0.4 * (high_p - low_p)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_terms_state_the_formula(law: Law) -> None:
    x = table(law)
    design = build_design(law, x, np.full(40, 3.0))
    low_p, high_p = design.start_box
    for fraction in (0.2, 0.5, 0.8):
        theta = design.to_theta(low_p + fraction * (high_p - low_p))
        log_n = term_shares(design.to_phi(theta), design.problem)[1]
        np.testing.assert_allclose(
            np.exp(log_n), law.curve(law.to_parameters(theta), x), rtol=1e-11
        )


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_derivatives_are_those_of_the_objective(law: Law, objective: Objective) -> None:
    q, phi = problem(law, objective)
    delta = objective.delta
    step = 1e-6 * np.eye(phi.size)
    gradient, hessian, _ = derivatives(phi, q, delta)[1]
    up = [derivatives(phi + s, q, delta) for s in step]
    down = [derivatives(phi - s, q, delta) for s in step]
    numeric = np.array([(u[0] - d[0]) / 2e-6 for u, d in zip(up, down, strict=True)])
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-5 * np.abs(gradient).max())
    curved = np.array(
        [(u[1].gradient_p - d[1].gradient_p) / 2e-6 for u, d in zip(up, down, strict=True)]
    )
    np.testing.assert_allclose(hessian, curved, rtol=1e-5, atol=1e-8 + 1e-5 * np.abs(hessian).max())


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_coordinates_and_parameters_are_one_for_one(law: Law) -> None:
    theta = np.linspace(0.2, 0.9, len(law.coordinates))
    np.testing.assert_allclose(law.to_coordinates(law.to_parameters(theta)), theta, rtol=1e-12)
    assert set(law.units) == set(law.parameters)
