"""Fits: published values, recovery, invariances, and a word on every bad table."""

import numpy as np
import pandas as pd
import pytest

from analysis.fit import fit
from analysis.intervals import bootstrap, with_intervals
from analysis.memory_laws import find_law
from analysis.result import FitStatus
from core.errors import InputError
from tests.analysis.synthetic import DATA, HOFFMANN


def crossed(sizes: int = 6, budgets: int = 6) -> dict[str, np.ndarray]:
    n, d = np.meshgrid(np.geomspace(4e7, 1e10, sizes), np.geomspace(1e9, 3e11, budgets))
    return {"N": n.ravel(), "D": d.ravel()}


def hoffmann(x: dict[str, np.ndarray]) -> np.ndarray:
    return find_law("chinchilla").curve(HOFFMANN, x)


def test_olmo_ladder_is_reproduced() -> None:
    """Published with arXiv 2412.04403: log-Huber, delta 1e-3, on the 16 training runs."""
    table = pd.read_csv(DATA / "bhagia_2024_olmo_ladder.csv")
    train = table[table["mode"] == "train"]
    x = {name: train[name].to_numpy(dtype=float) for name in ("N", "D")}
    y = train["c4_en_ce"].to_numpy()
    result = fit(find_law("chinchilla"), x, y)
    assert result.status is FitStatus.CONVERGED
    published = {"E": 0.93438, "A": 12.4828, "B": 33.4768, "alpha": 0.103603, "beta": 0.161969}
    assert dict(result.parameters) == pytest.approx(published, rel=1e-4)
    assert result.value <= 3.299857e-5 * (1 + 1e-6)
    assert np.mean(np.abs(result.predict(x) / y - 1)) == pytest.approx(0.00247307, rel=1e-4)
    largest = table.loc[table["N"].idxmax()]
    predicted = result.predict({"N": np.array([largest["N"]]), "D": np.array([largest["D"]])})
    assert predicted[0] == pytest.approx(2.34438731, rel=1e-4)


def test_truth_is_recovered_without_noise() -> None:
    x = crossed()
    result = fit(find_law("chinchilla"), x, hoffmann(x))
    assert result.status is FitStatus.CONVERGED
    assert dict(result.parameters) == pytest.approx(HOFFMANN, rel=1e-6)


def noisy() -> tuple[dict[str, np.ndarray], np.ndarray]:
    x = crossed()
    return x, hoffmann(x) * np.exp(np.random.default_rng(0).normal(0, 0.01, 36))


def test_row_order_does_not_matter() -> None:
    x, y = noisy()
    order = np.random.default_rng(1).permutation(36)
    one = fit(find_law("chinchilla"), x, y)
    two = fit(find_law("chinchilla"), {k: v[order] for k, v in x.items()}, y[order])
    assert dict(two.parameters) == pytest.approx(dict(one.parameters), rel=1e-6)


def test_units_do_not_matter() -> None:
    x, y = noisy()
    one = fit(find_law("chinchilla"), x, y).parameters
    other = fit(find_law("chinchilla"), {"N": x["N"] / 1e6, "D": x["D"] / 1e9}, y).parameters
    converted = {
        **other,
        "A": other["A"] * 1e6 ** other["alpha"],
        "B": other["B"] * 1e9 ** other["beta"],
    }
    assert converted == pytest.approx(dict(one), rel=1e-6)


@pytest.mark.parametrize("points", [2, 3])
def test_no_more_points_than_parameters_are_not_fitted(points: int) -> None:
    n = np.array([1e6, 2e6, 4e6])[:points]
    result = fit(find_law("saturating"), {"N": n}, 2 + 30 / n**0.25)
    assert result.status is FitStatus.NOT_ENOUGH_DATA
    assert result.reason == f"3 parameters from {points} configurations"
    assert not result.usable
    assert np.isnan(list(result.parameters.values())).all()


def test_seeds_are_no_configurations() -> None:
    n = np.repeat([1e6, 2e6, 4e6], 5)
    y = (2 + 30 / n**0.25) * np.exp(np.random.default_rng(0).normal(0, 0.01, 15))
    result = fit(find_law("saturating"), {"N": n}, y)
    assert (result.n, result.configurations) == (15, 3)
    assert result.status is FitStatus.NOT_ENOUGH_DATA
    assert bootstrap(result, {"N": n}, y) is None


def test_few_sizes_are_said_to_be_few() -> None:
    n = np.geomspace(1e5, 1e6, 5)
    y = (2 + 30 / n**0.25) * np.exp(np.random.default_rng(0).normal(0, 1e-3, 5))
    assert any("few data" in note for note in fit(find_law("saturating"), {"N": n}, y).notes)


def test_all_equal_sizes_are_a_flat_direction() -> None:
    x = crossed()
    x["N"] = np.full(36, 1e8)
    result = fit(find_law("chinchilla"), x, hoffmann(x))
    assert result.status is FitStatus.FLAT or result.status is FitStatus.NOT_ENOUGH_DATA
    assert "alpha" in result.reason


def test_a_vanishing_floor_is_at_a_bound() -> None:
    n = np.geomspace(1e5, 1e8, 12)
    y = 30 / n**0.1 * np.exp(-0.02 * np.log(n / 1e6) ** 2)  # bends down: no floor fits it
    result = fit(find_law("saturating"), {"N": n}, y)
    assert result.status is FitStatus.AT_BOUND
    assert "E" in result.reason


def test_duplicated_rows_are_said() -> None:
    x, y = noisy()
    result = fit(
        find_law("chinchilla"), {k: np.r_[v, v[:2]] for k, v in x.items()}, np.r_[y, y[:2]]
    )
    assert result.status is FitStatus.DUPLICATED_ROWS


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 0.0])
def test_losses_without_a_logarithm_are_refused(bad: float) -> None:
    x, y = noisy()
    y[4] = bad
    with pytest.raises(InputError, match="row 5"):
        fit(find_law("chinchilla"), x, y)


@pytest.mark.parametrize("bad", [np.nan, -1e6, 0.0])
def test_sizes_that_are_not_positive_are_refused(bad: float) -> None:
    x, y = noisy()
    x["N"][2] = bad
    with pytest.raises(InputError, match=r"N is .* in row 3"):
        fit(find_law("chinchilla"), x, y)


def test_bootstrap_keeps_the_seeds_of_a_configuration_together() -> None:
    x = {name: np.repeat(column, 3) for name, column in crossed(4, 4).items()}
    y = hoffmann(x) * np.exp(np.random.default_rng(0).normal(0, 0.01, 48))
    result = fit(find_law("chinchilla"), x, y)
    boot = bootstrap(result, x, y, resamples=200)
    assert boot is not None
    again = bootstrap(result, x, y, resamples=200)
    assert again is not None
    np.testing.assert_array_equal(boot.theta_bp, again.theta_bp)
    interval = with_intervals(result, boot).intervals["alpha"]
    assert interval.low < result.parameters["alpha"] < interval.high
