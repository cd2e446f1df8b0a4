"""Every law finds its own truth again; published fits are reproduced; intervals cover."""

import numpy as np
import pandas as pd
import pytest

from analysis.fit import TOLERANCE, fit, prepare, start_points
from analysis.intervals import bootstrap, corrected, fit_with_intervals, with_intervals
from analysis.law import Law
from analysis.memory_laws import LAWS, find_law
from analysis.newton import minimise_many
from analysis.objectives import find_objective
from analysis.result import FitStatus
from tests.analysis.synthetic import DATA, HOFFMANN, TRUTHS, spread


@pytest.mark.parametrize("objective", ["log-huber", "log-squares", "squares", "asymmetric"])
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_truth_is_recovered_without_noise(law: Law, objective: str) -> None:
    x = spread()
    y = law.curve(TRUTHS[law.name], x)
    result = fit(law, x, y, find_objective(objective), starts=64)
    assert result.status is FitStatus.CONVERGED
    assert dict(result.parameters) == pytest.approx(TRUTHS[law.name], rel=1e-6)


@pytest.mark.parametrize(
    "law", [law for law in LAWS.values() if "M" in law.inputs], ids=lambda law: law.name
)
def test_memory_laws_are_dense_without_memory(law: Law) -> None:
    x = spread()
    x = {**x, "M": np.zeros(80), "W": np.zeros(80)}
    dense = dict(HOFFMANN)
    if "T" in law.parameters:
        dense["E"] += TRUTHS[law.name]["T"]
    np.testing.assert_allclose(
        law.curve(TRUTHS[law.name], x), find_law("chinchilla").curve(dense, x), rtol=1e-12
    )


@pytest.mark.parametrize(
    "law", [law for law in LAWS.values() if "M" in law.inputs], ids=lambda law: law.name
)
def test_without_memory_in_the_data_its_terms_are_flat(law: Law) -> None:
    x = spread()
    x = {**x, "M": np.zeros(80), "W": np.zeros(80)}
    result = fit(law, x, law.curve(TRUTHS[law.name], x), starts=16)
    assert result.status is FitStatus.FLAT
    assert "kappa" in result.reason


def test_tied_exponent_fit_of_gadre_is_reproduced() -> None:
    """arXiv 2403.08540: five runs, plain least squares; two runs extrapolated."""
    table = pd.read_csv(DATA / "gadre_2024_testbed.csv")
    table = table[table["dataset"] == "rpj"].set_index(["model", "chinchilla_multiplier"])
    small = ["d=96_l=8_h=4", "d=512_l=8_h=4", "d=576_l=24_h=8", "d=1024_l=24_h=8"]
    train = table.loc[[*((model, 1.0) for model in small), (small[0], 16.0)]]
    x = {name: train[name].to_numpy(dtype=float) for name in ("N", "D")}
    result = fit(find_law("tied"), x, train["loss_c4_val"].to_numpy(), find_objective("squares"))
    published = {"A": 166.211, "B": 366.687, "eta": -0.27285, "E": 1.83665}
    assert dict(result.parameters) == pytest.approx(published, rel=1e-4)
    assert result.converged
    for key, error in ((("open_lm_1b", 32.0), 0.007103), (("open_lm_7b", 1.0), 0.007320)):
        run = table.loc[[key]]
        at = {name: run[name].to_numpy(dtype=float) for name in ("N", "D")}
        measured = run["loss_c4_val"].to_numpy()
        assert abs(result.predict(at) / measured - 1)[0] == pytest.approx(error, abs=1e-6)


def coverage(law: Law, objective: str, rows: int, repeats: int, resamples: int) -> dict[str, float]:
    """Share of repeats whose 95 % interval holds the truth, per parameter; 1 % noise."""
    truth = TRUTHS[law.name]
    x = {name: column[:rows] for name, column in spread(max(rows, 80)).items()}
    if "M" in law.inputs:
        x = spread(rows)
    clean = law.curve(truth, x)
    hits = dict.fromkeys(truth, 0)
    for repeat in range(repeats):
        noise = np.random.default_rng([7, repeat]).normal(0, 0.01, rows)
        y = clean * np.exp(noise)
        result = fit(law, x, y, find_objective(objective), starts=8)
        result = with_intervals(result, bootstrap(result, x, y, resamples, seed=repeat))
        for name, value in truth.items():
            own = result.intervals.get(name)
            hits[name] += own is not None and own.low <= value <= own.high
    return {name: count / repeats for name, count in hits.items()}


@pytest.mark.coverage
@pytest.mark.parametrize("objective", ["log-huber", "log-squares"])
@pytest.mark.parametrize(
    ("name", "rows"), [("saturating", 30), ("chinchilla", 30), ("chinchilla", 60)]
)
def test_intervals_cover_the_truth(name: str, rows: int, objective: str) -> None:
    shares = coverage(find_law(name), objective, rows, repeats=500, resamples=500)
    assert all(0.92 <= share <= 0.98 for share in shares.values()), shares


def test_intervals_cover_the_truth_in_a_smaller_study() -> None:
    """60 repeats: 95 % of them, give or take three standard errors of 2.8 %."""
    shares = coverage(find_law("saturating"), "log-squares", 30, repeats=60, resamples=200)
    assert all(share >= 0.86 for share in shares.values()), shares


@pytest.mark.parametrize("objective", ["log-squares", "squares"])
def test_intervals_of_a_new_run_cover_it(objective: str) -> None:
    """Runs of four times the largest size; 120 repeats, three standard errors of 2 %."""
    law, chosen = find_law("saturating"), find_objective(objective)
    truth, x = TRUTHS[law.name], {"N": np.repeat(np.geomspace(1e6, 1e8, 10), 3)}
    beyond = {"N": np.array([4e8])}
    hits = 0
    for repeat in range(120):
        noise = np.random.default_rng([11, repeat]).normal(0, 0.01, 31)
        clean_n, clean = law.curve(truth, x), law.curve(truth, beyond)[0]
        noisy = [clean_n + noise[:30], clean + noise[30]]
        if not chosen.linear:
            noisy = [clean_n * np.exp(noise[:30]), clean * np.exp(noise[30])]
        y, run = noisy
        fitted = fit_with_intervals(law, x, y, chosen, starts=8, resamples=200, seed=repeat)
        interval = fitted.new_run(beyond)
        assert interval is not None
        hits += interval[0][0] <= run <= interval[1][0]
    assert 0.89 <= hits / 120 < 1


def test_the_interval_of_a_new_run_is_as_wide_as_the_runs_scatter() -> None:
    """Many runs pin the curve, so what is left is the noise: 1.96 of its standard deviations."""
    law, x = find_law("saturating"), {"N": np.geomspace(1e6, 1e9, 2000)}
    noise = np.random.default_rng(0).normal(0, 0.01, 2000)
    fitted = fit_with_intervals(law, x, law.curve(TRUTHS[law.name], x) * np.exp(noise), starts=8)
    low, high = fitted.new_run({"N": np.array([1e7])}) or (np.nan, np.nan)
    assert np.log(high / low) == pytest.approx(2 * 1.96 * 0.01, rel=0.05)


def test_corrected_percentiles_without_bias_are_students() -> None:
    values = np.random.default_rng(0).normal(0, 1, 200_000)
    assert corrected(values, 0.0, 10_000, 2).high == pytest.approx(1.96, abs=0.03)
    assert corrected(values, 0.0, 10, 5).high == pytest.approx(2.5706, abs=0.05)


def test_corrected_percentiles_move_against_the_bias() -> None:
    """Draws that lie one half too high: the interval is that of the estimate, mirrored."""
    values = np.random.default_rng(0).normal(0.5, 1, 200_000)
    own = corrected(values, 0.0, 10_000, 2)
    assert own.low == pytest.approx(0.5 - 1.0 - 1.96, abs=0.04)
    assert own.high == pytest.approx(0.5 - 1.0 + 1.96, abs=0.04)


def test_seed_of_the_bootstrap_does_not_move_the_estimate() -> None:
    x = spread(40)
    y = LAWS["chinchilla"].curve(HOFFMANN, x) * np.exp(np.random.default_rng(0).normal(0, 0.01, 40))
    result = fit(LAWS["chinchilla"], x, y)
    one, two = (bootstrap(result, x, y, 100, seed=s) for s in (1, 2))
    assert one is not None and two is not None
    assert one.result is two.result is result
    assert not np.array_equal(one.theta_bp, two.theta_bp)


def olmo() -> tuple[dict[str, np.ndarray], np.ndarray]:
    table = pd.read_csv(DATA / "bhagia_2024_olmo_ladder.csv")
    train = table[table["mode"] == "train"]
    return {k: train[k].to_numpy(dtype=float) for k in ("N", "D")}, train["c4_en_ce"].to_numpy()


def test_refits_of_few_rows_in_a_flat_valley_converge() -> None:
    """16 rows, 5 parameters: most resamples have ten distinct rows, and as many kinks."""
    x, y = olmo()
    boot = bootstrap(fit(LAWS["chinchilla"], x, y), x, y, resamples=300)
    assert boot is not None
    assert boot.failed <= 3
    assert len(boot.theta_bp) == 300


@pytest.mark.parametrize(("share", "status"), [(0.01, "converged"), (0.05, "unstable")])
def test_refits_that_do_not_converge_are_counted(
    monkeypatch: pytest.MonkeyPatch, share: float, status: str
) -> None:
    def refits(start: np.ndarray, _: object, times_bn: np.ndarray, *__: object):  # type: ignore[no-untyped-def]
        slope_b = np.where(np.arange(len(times_bn)) < share * len(times_bn), 1.0, 0.0)
        return np.tile(start, (len(times_bn), 1)), slope_b

    monkeypatch.setattr("analysis.intervals.minimise_reweighted", refits)
    x, y = olmo()
    result = fit(LAWS["chinchilla"], x, y, starts=32)
    result = with_intervals(result, bootstrap(result, x, y, resamples=100))
    assert result.status == status
    assert bool(result.intervals) == (status == "converged")
    said = f"{100 * share:.0f} of 100 bootstrap refits did not converge"
    assert said in " ".join([result.reason, *result.notes])


def test_no_start_stalls_where_the_objective_is_all_rounding() -> None:
    x, y = olmo()
    own = prepare(LAWS["chinchilla"], x, y, find_objective("log-huber"))
    starts_sp, delta = start_points(own.design, 64), own.objective.delta
    _, slope_s, _ = minimise_many(starts_sp, own.problem, delta, own.design.bounds, TOLERANCE)
    assert (slope_s <= TOLERANCE).all()
