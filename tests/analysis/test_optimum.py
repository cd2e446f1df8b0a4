"""Iso-FLOP minima, the envelope, model choice, plans, counts."""

import numpy as np
import pandas as pd
import pytest

from analysis.choice import choose, largest
from analysis.counts import COUNTS, count, exponents
from analysis.fit import fit
from analysis.intervals import bootstrap
from analysis.isoflop import MinimumStatus, envelope, isoflop_minima, minimum, optimum_law
from analysis.memory_laws import LAWS, MEMORY_LAWS, find_law
from analysis.planner import Budget, iso_loss, plan
from core.errors import InputError
from tests.analysis.conftest import make_runs
from tests.analysis.synthetic import HOFFMANN, TRUTHS, spread

SYMMETRIC = {**HOFFMANN, "A": 400.0, "B": 400.0, "alpha": 0.3, "beta": 0.3}


def isoflops(budgets: np.ndarray) -> pd.DataFrame:
    """At equal exponents and factors the best N is sqrt(C / 6), and so is the best D."""
    rows = []
    for c in budgets:
        n = np.sqrt(c / 6) * np.geomspace(0.4, 2.5, 9)
        x = {"N": n, "D": c / (6 * n)}
        rows.append(
            pd.DataFrame({"n": n, "c": c, "loss": find_law("chinchilla").curve(SYMMETRIC, x)})
        )
    return pd.concat(rows, ignore_index=True)


def test_minima_of_isoflop_curves_give_the_known_exponent() -> None:
    frame = isoflops(np.geomspace(1e18, 1e21, 5))
    minima = isoflop_minima(frame, "n", "c", "loss")
    assert set(minima["status"]) == {MinimumStatus.FOUND}
    np.testing.assert_allclose(minima["size"], np.sqrt(minima["flops"] / 6), rtol=1e-6)
    law = optimum_law(minima)
    assert law.parameters["p"] == pytest.approx(0.5, rel=1e-6)


def test_error_of_a_minimum_against_simulation() -> None:
    rng, n = np.random.default_rng(0), np.geomspace(1e6, 1e8, 9)
    clean = 3 + 0.05 * np.log(n / 1e7) ** 2
    found = [minimum(1e18, n, clean + rng.normal(0, 0.002, 9)) for _ in range(400)]
    spread_of_places = np.std(np.log([m.size for m in found]))
    assert np.mean([m.error for m in found]) == pytest.approx(spread_of_places, rel=0.15)


@pytest.mark.parametrize(
    ("loss", "status"),
    [
        (lambda z: 3 - 0.1 * z**2, MinimumStatus.DOWNWARD),
        (lambda z: 3 + 0.1 * (z - 4) ** 2, MinimumStatus.EDGE),
    ],
)
def test_no_optimum_is_made_up(loss, status: MinimumStatus) -> None:  # type: ignore[no-untyped-def]
    n = np.geomspace(1e6, 1e8, 9)
    found = minimum(1e18, n, loss(np.log(n / 1e7)))
    assert found.status is status
    assert np.isnan(found.size)


def test_three_sizes_make_no_isoflop_curve() -> None:
    n = np.array([1e6, 1e7, 1e8])
    assert minimum(1e18, n, np.array([3.1, 3.0, 3.1])).status is MinimumStatus.TOO_FEW


def test_envelope_leaves_out_what_the_extremes_win() -> None:
    rows = []
    for i, n in enumerate(np.geomspace(1e6, 1e8, 9)):
        d = np.geomspace(1e6, 1e11, 60)
        loss = find_law("chinchilla").curve(SYMMETRIC, {"N": np.full(60, n), "D": d})
        frame = {"run_id": str(i), "n": n, "flops_per_token": 6 * n, "tokens": d, "loss": loss}
        rows.append(pd.DataFrame(frame))
    table = envelope(pd.concat(rows))
    assert table["size"].between(1.1e6, 0.9e8).all()
    slope = np.polyfit(np.log(table["flops"]), np.log(table["size"]), 1)[0]
    assert slope == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("law", MEMORY_LAWS, ids=lambda law: law.name)
def test_the_law_that_made_the_data_predicts_best(law) -> None:  # type: ignore[no-untyped-def]
    x = spread()
    y = law.curve(TRUTHS[law.name], x) * np.exp(np.random.default_rng(0).normal(0, 1e-3, 80))
    choice = choose(MEMORY_LAWS, x, y, largest(x["N"]))
    assert choice.table.loc[0, "law"] == law.name
    assert choice.margin > 0


def test_laws_that_the_data_cannot_tell_apart() -> None:
    x = spread()
    rng = np.random.default_rng(0)
    y = LAWS["chinchilla"].curve(HOFFMANN, x) * np.exp(rng.normal(0, 0.05, 80))
    choice = choose([LAWS["chinchilla"], LAWS["kaplan"], LAWS["tied"]], x, y, largest(x["N"]))
    assert choice.low <= choice.margin <= choice.high
    assert ("cannot tell" in choice.verdict) == (choice.low <= 0)


def test_largest_keeps_whole_sizes_together() -> None:
    assert largest(np.array([1.0, 2, 3, 4, 4])).tolist() == [False, False, False, True, True]


def planned(**limits: float):  # type: ignore[no-untyped-def]
    law, x = LAWS["memory-parameters"], spread()
    y = law.curve(TRUTHS[law.name], x) * np.exp(np.random.default_rng(0).normal(0, 1e-3, 80))
    result = fit(law, x, y)
    return plan(result, Budget(**limits), x, bootstrap(result, x, y, 50)), result


def test_a_plan_keeps_to_its_budget_and_is_the_best_there() -> None:
    best, result = planned(flops=1e21, ram_bytes=4e9, flash_bytes=2e11)
    assert 6 * (best.N + best.M) * best.D <= 1e21 * (1 + 1e-9)
    assert 2 * (best.N + best.M) <= 4e9 * (1 + 1e-9)
    assert best.M <= best.W <= 1e11 * (1 + 1e-9)
    rng = np.random.default_rng(1)
    runtime = np.exp(rng.uniform(np.log(1e7), np.log(2e9), 20_000))
    fetched = runtime * rng.uniform(0, 0.9, runtime.size)
    bank = fetched + rng.uniform(0, 1, runtime.size) * np.maximum(1e11 - fetched, 0)
    x = {"N": runtime - fetched, "M": fetched, "W": bank, "D": 1e21 / (6 * runtime)}
    assert best.loss <= result.predict(x).min() + 1e-4
    low, high = best.intervals["loss"]
    assert low <= best.loss <= high


def test_dense_plan_against_the_closed_form() -> None:
    """arXiv 2203.15556, eq. 4."""
    x = spread()
    law = LAWS["chinchilla"]
    result = fit(law, x, law.curve(HOFFMANN, x))
    best = plan(result, Budget(flops=1e21), x)
    a, b = HOFFMANN["alpha"], HOFFMANN["beta"]
    g = (a * HOFFMANN["A"] / (b * HOFFMANN["B"])) ** (1 / (a + b))
    assert pytest.approx(g * (1e21 / 6) ** (b / (a + b)), rel=0.05) == best.N


@pytest.mark.parametrize("limits", [{}, {"tokens": 1e9, "flash_bytes": 1e9}, {"flops": 1e21}])
def test_a_budget_without_a_limit_is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(InputError, match="always better"):
        planned(**limits)


def test_iso_loss_frontier_trades_anchor_for_memory() -> None:
    law = LAWS["memory-parameters"]
    truth = {**TRUTHS[law.name], "omega": 0.0}
    fetched = np.array([0.0, 1e7, 1e8])
    at = {"N": np.array([1e9]), "M": np.zeros(1), "W": np.zeros(1), "D": np.array([1e10])}
    loss = float(law.curve(truth, at)[0])
    n = iso_loss(law, truth, loss, fetched, 10.0, 1e10)
    np.testing.assert_allclose(n, 1e9 - truth["kappa"] * fetched, rtol=1e-3)


def test_exponents_move_with_what_is_counted() -> None:
    runs = make_runs(noise=0.0)
    runs = runs[runs["status"] == "done"].assign(n_embed=400_000)
    dense = runs[runs["arm"] == "dense"]
    assert (count(dense, "anchor+embed") == count(dense, "anchor") + 400_000).all()
    table = exponents(dense, "loss_test_prefix").set_index("count")
    assert set(table.index) == set(COUNTS)
    assert table.loc["anchor+embed", "alpha"] > 1.2 * table.loc["anchor", "alpha"]
    with pytest.raises(InputError, match="choose one of"):
        count(dense, "everything")
