"""Multipliers and paired differences against the truth that the runs were made with."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.comparisons import compare_arms
from analysis.figures_memory import multiplier_by_arm
from analysis.fit import fit
from analysis.memory_laws import find_law
from analysis.multiplier import RULED_OUT, dense_curve, log_interval, multipliers, sizes_not_told
from analysis.paired import (
    EQUAL_RUNTIME,
    FRESH,
    JOINT,
    SINCE_FEWEST,
    budget_differences,
    control_differences,
    paired_differences,
    setting_differences,
)
from analysis.runs import one_count_a_budget
from analysis.seeds import smallest_detectable
from tests.analysis.conftest import TOKENS, WORTH, make_runs, true_loss


def exact(seeds: int = 3) -> pd.DataFrame:
    frame = make_runs(seeds, noise=0.0)
    return one_count_a_budget(frame[frame["status"] == "done"])


def test_multiplier_is_the_one_that_was_put_in() -> None:
    table = multipliers(exact(), "loss_test_prefix")
    ffn = table[table["arm"] == "ffn"]
    truth = (ffn["n_anchor"] + WORTH * ffn["n_fetched"]) / (ffn["n_anchor"] + ffn["n_fetched"])
    np.testing.assert_allclose(ffn["multiplier"], truth, rtol=0.01)  # interpolation, not noise
    assert set(ffn["basis"]) == {"interpolated"}
    generic = table[table["arm"] == "generic"]
    np.testing.assert_allclose(generic["multiplier"], 1.0, rtol=0.01)


def test_what_a_seed_does_to_every_arm_cancels() -> None:
    table = multipliers(exact(5), "loss_test_prefix")
    assert (table["interval"] == "95 %, paired over 5 seeds").all()
    assert (np.log(table["high"] / table["low"]) < 1e-6).all()


def test_outside_the_dense_range_is_said() -> None:
    frame = exact()
    small = frame[(frame["memory_type"] != "none") | (frame["n_anchor"] <= 110_000)]
    table = multipliers(small, "loss_test_prefix")
    largest = table[(table["arm"] == "ffn") & (table["anchor"] == "4x64")].iloc[0]
    assert np.isnan(largest["multiplier"])
    assert largest[["low", "high"]].isna().all() and largest["interval"].startswith("none: no mult")
    assert largest["basis"].endswith("no law is fitted to dense runs in this measure")
    few = fit(find_law("saturating"), {"N": np.array([1e5, 2e5])}, np.array([4.0, 3.5]))
    table = multipliers(small, "loss_test_prefix", fit=few)
    assert table["basis"].str.endswith("status of the dense fit: not enough data").any()


def test_a_fit_that_the_paired_runs_contradict_gives_no_value() -> None:
    frame = exact(5)
    small = frame[(frame["memory_type"] != "none") | (frame["n_anchor"] <= 110_000)]
    size_n = np.geomspace(1e4, 1e6, 12)
    true_n = np.array([true_loss(n) for n in size_n])
    for shift, basis in ((0.0, "outside the dense range: extrapolated"), (0.6, RULED_OUT)):
        law = fit(find_law("saturating"), {"N": size_n}, true_n - shift)
        table = multipliers(small, "loss_test_prefix", fit=law).set_index(["arm", "anchor"])
        row = table.loc[("ffn", "4x64")]
        assert row["basis"] == basis
        assert np.isnan(row["multiplier"]) == np.isnan(row["low"]) == (shift > 0)


def test_two_seeds_give_a_range_and_say_so() -> None:
    assert log_interval(np.array([1.1, 1.3]))[2] == "2 seeds: range, no interval"
    assert log_interval(np.array([1.1]))[2] == "one seed: no interval"
    assert log_interval(np.array([1.1, 1.2, 1.3]))[2] == "95 %, paired over 3 seeds"


@pytest.mark.parametrize("side", ["above", "below"])
def test_a_seed_outside_its_dense_range_opens_the_interval(side: str) -> None:
    runs = exact(5)
    loss, dense = runs["loss_test_prefix"], runs.loc[runs["arm"] == "dense", "loss_test_prefix"]
    own = (runs["arm"] == "ffn") & (runs["anchor"] == "4x48")
    end = dense.min() if side == "above" else dense.max()
    runs.loc[own & (runs["seed"] == 0), "loss_test_prefix"] += 1.4 * (end - loss[own].mean())
    open_end, other = ("high", "low") if side == "above" else ("low", "high")
    row = multipliers(runs, "loss_test_prefix").set_index(["arm", "anchor"]).loc[("ffn", "4x48")]
    assert row["interval"] == f"95 %, paired over 5 seeds, no limit {side}"
    assert np.isnan(row[open_end]) and row["seeds"] == 5
    whole = multipliers(exact(5), "loss_test_prefix").set_index(["arm", "anchor"])["multiplier"]
    assert (row[other] < whole["ffn", "4x48"]) == (side == "above")
    table = multipliers(runs, "loss_test_prefix")
    (axis,) = multiplier_by_arm({("prefix", "n_runtime"): table}).figure.axes
    drawn = [x for line in axis.collections for path in line.get_paths() for x in path.vertices]
    edges = [x for x, y in drawn if x in axis.get_xlim()]
    expected = table[open_end].isna() & table["multiplier"].notna()
    assert edges.count(axis.get_xlim()[side == "above"]) == expected.sum() > 0


def test_ends_by_paired_differences_are_those_of_a_t_test() -> None:
    """At the dense size of an end, the interval of the difference begins or ends at 0."""
    rng = np.random.default_rng(1)
    value_s = 1.5 + rng.normal(0, 0.05, 5)
    dense_sn = pd.DataFrame(
        {size: np.full(5, loss) for size, loss in ((100.0, 2.0), (200.0, 1.5), (400.0, 1.0))}
    )
    low, high, words = sizes_not_told(value_s, dense_sn)
    assert words == "95 %, paired over 5 seeds"
    ends = stats.ttest_1samp(value_s, 0.0).confidence_interval(0.95)
    for size, loss in ((low, ends.high), (high, ends.low)):
        assert 2.0 - np.log2(size / 100.0) / 2 == pytest.approx(loss, abs=0.01)


def test_paired_difference_to_dense_at_equal_runtime() -> None:
    table = paired_differences(exact(), "ffn", EQUAL_RUNTIME, "loss_test_prefix")
    n, m = table["n_anchor"], table["n_fetched"]
    truth = [true_loss(a + WORTH * b) - true_loss(a + b) for a, b in zip(n, m, strict=True)]
    np.testing.assert_allclose(table["difference"], truth, atol=5e-3)


def test_dense_runs_packed_by_another_tree_are_left_out_or_named() -> None:
    frame = exact()
    dense = frame[frame["memory_type"] == "none"]
    moved = dense.assign(embedder="random", loss_test_prefix=dense["loss_test_prefix"] + 0.04)
    rest = frame[frame["memory_type"] != "none"]
    fair = paired_differences(frame, "ffn", EQUAL_RUNTIME, "loss_test_prefix")
    assert fair["packed_alike"].all()
    both = pd.concat([moved, frame])
    pd.testing.assert_frame_equal(
        paired_differences(both, "ffn", EQUAL_RUNTIME, "loss_test_prefix"), fair
    )
    pd.testing.assert_frame_equal(
        multipliers(both, "loss_test_prefix"), multipliers(frame, "loss_test_prefix")
    )
    other = pd.concat([moved, rest])
    unfair = paired_differences(other, "ffn", EQUAL_RUNTIME, "loss_test_prefix")
    assert not unfair["packed_alike"].any()
    np.testing.assert_allclose(unfair["difference"], fair["difference"] - 0.04)


def test_smallest_detectable_effect_against_simulation() -> None:
    """A true effect of that size is found in 80 % of studies."""
    rng = np.random.default_rng(0)
    effect = smallest_detectable(1.0, 6, 5)
    d = rng.normal(effect, 1.0, (20_000, 6))
    t = d.mean(1) / (d.std(1, ddof=1) / np.sqrt(6))
    assert np.mean(np.abs(t) > 2.5706) == pytest.approx(0.8, abs=0.03)


def test_dense_curve_is_monotone_even_where_the_runs_are_not() -> None:
    frame = exact(1)
    frame.loc[frame["anchor"].eq("4x96") & frame["arm"].eq("dense"), "loss_test_prefix"] = 9.0
    curve = dense_curve(frame, "loss_test_prefix", "n_runtime")
    assert curve is not None
    assert (np.diff(curve.loss_n) <= 0).all()


def test_controls_are_differences_within_a_run() -> None:
    runs = exact(3)
    table = control_differences(runs, "test").set_index("against")
    assert set(table["arm"]) == {"ffn"}  # no path, no control
    for words, truth in (
        ("shuffled path minus prefix path", 0.2),
        ("shuffled path minus document path", 0.23),
        ("memory off minus prefix path", 0.3),
    ):
        np.testing.assert_allclose(table.loc[words, "difference"], truth, atol=1e-12)
    assert (table["seeds"] == 3).all()
    assert table["by_seed"].iloc[0] == "+0.2000 +0.2000 +0.2000"


def test_arms_are_compared_at_equal_size_alone() -> None:
    runs = exact(3)
    assert len(paired_differences(runs, "ffn", "generic", "loss_test_prefix")) == 3
    runs.loc[(runs["arm"] == "generic") & (runs["anchor"] == "4x64"), "n_runtime"] *= 1.02
    assert len(paired_differences(runs, "ffn", "generic", "loss_test_prefix")) == 2


def test_of_points_of_equal_size_the_one_placed_alike_and_of_the_nearest_m_is_taken() -> None:
    runs = exact(3)
    generic = runs[runs["arm"] == "generic"]
    worse = generic["loss_test_prefix"] + 1.0
    late = generic.assign(placement="3", loss_test_prefix=worse)
    more = generic.assign(n_fetched=generic["n_fetched"] + 90, loss_test_prefix=worse)
    plain = paired_differences(runs, "ffn", "generic", "loss_test_prefix")
    for extra in (late, more):
        both = paired_differences(pd.concat([runs, extra]), "ffn", "generic", "loss_test_prefix")
        pd.testing.assert_frame_equal(both, plain)
    moved = pd.concat([runs.assign(placement=runs["arm"].map({"ffn": "3"}).fillna("")), late])
    table = paired_differences(moved, "ffn", "generic", "loss_test_prefix")
    np.testing.assert_allclose(table["difference"], plain["difference"] - 1.0)
    elsewhere = runs.assign(placement=runs["arm"].map({"ffn": "0"}).fillna(""))
    table = paired_differences(pd.concat([elsewhere, late]), "ffn", "generic", "loss_test_prefix")
    np.testing.assert_allclose(table["difference"], plain["difference"])  # the first of them


def test_other_types_are_compared_with_ffn() -> None:
    runs = exact(3)
    ffn = runs[runs["arm"] == "ffn"]
    kv = ffn.assign(arm="kv", memory_type="kv", loss_test_prefix=ffn["loss_test_prefix"] + 0.02)
    random = ffn.assign(arm="ffn-random", embedder="random")
    table = compare_arms(pd.concat([runs, kv, random]), ["prefix"], "test")
    found = table[table["against"] == "ffn"]
    assert set(found["arm"]) == {"kv"}
    np.testing.assert_allclose(found["difference"], 0.02, atol=1e-12)


def test_a_memory_on_a_trained_anchor_is_compared_with_joint_training_of_all_its_flops() -> None:
    joint = exact(3).assign(training="joint", start_flops=0.0)
    ffn = joint[joint["arm"] == "ffn"]
    spent = ffn["flops_per_token"] * ffn["token_budget"]
    late = ffn.assign(
        arm="ffn-frozen",
        training="frozen",
        tokens=ffn["tokens"] // 2,
        start_flops=0.4 * spent,
        token_budget=0.605 * ffn["token_budget"],
        loss_test_prefix=ffn["loss_test_prefix"] + 0.3,
    )
    table = paired_differences(pd.concat([joint, late]), "ffn-frozen", JOINT, "loss_test_prefix")
    assert len(table) == ffn["anchor"].nunique()
    np.testing.assert_allclose(table["difference"], 0.3, atol=1e-12)
    more = late.assign(start_flops=0.5 * spent)
    assert paired_differences(
        pd.concat([joint, more]), "ffn-frozen", JOINT, "loss_test_prefix"
    ).empty
    assert paired_differences(joint, "ffn", JOINT, "loss_test_prefix").empty


def test_settings_of_an_arm_are_compared_with_its_first_at_equal_size() -> None:
    runs = exact(3)
    uniform = runs[(runs["arm"] == "ffn") & (runs["anchor"] != "4x64")]
    late = uniform.assign(placement="3", loss_test_prefix=uniform["loss_test_prefix"] - 0.01)
    split = uniform.assign(anchor="narrow", n_anchor=1, loss_test_prefix=9.0, seed=9)
    table = setting_differences(pd.concat([runs, late, split]), "ffn", "loss_test_prefix")
    assert set(table["anchor"]) == set(late["anchor"])  # of "narrow" no seed is shared
    assert set(table["placement"]) == {"3"}
    assert set(table["against"]) == {"its first placement"}
    np.testing.assert_allclose(table["difference"], -0.01, atol=1e-12)
    assert (table["seeds"] == 3).all() and table["packed_alike"].all()

    other = late.assign(branching="2-2")  # another tree packed its text
    unfair = setting_differences(pd.concat([runs, other]), "ffn", "loss_test_prefix")
    assert not unfair["packed_alike"].any()
    assert setting_differences(runs, "ffn", "loss_test_prefix").empty


def with_more_tokens(runs: pd.DataFrame, gain: float) -> pd.DataFrame:
    """Beside `runs` the same at twice the tokens, where every loss falls and that of ffn by `gain`
    more.
    """
    falls = 0.2 + gain * (runs["arm"] == "ffn")
    more = runs.assign(
        tokens=2 * runs["tokens"],
        token_budget=2 * runs["token_budget"],
        loss_test_prefix=runs["loss_test_prefix"] - falls,
    )
    return pd.concat([runs, more], ignore_index=True)


@pytest.mark.parametrize("against", ["generic", EQUAL_RUNTIME])
def test_what_a_memory_gains_with_more_tokens(against: str) -> None:
    runs = with_more_tokens(exact(3), gain=0.03)
    table = budget_differences(runs, "ffn", against, "loss_test_prefix")
    assert len(table) == 3 and set(table["tokens"]) == {runs["tokens"].max()}
    assert set(table["against"]) == {against + SINCE_FEWEST}
    np.testing.assert_allclose(table["difference"], -0.03, atol=1e-12)
    assert (table["seeds"] == 3).all() and table["packed_alike"].all()
    assert budget_differences(exact(3), "ffn", against, "loss_test_prefix").empty


def test_seeds_that_only_one_budget_has_are_left_out() -> None:
    runs = with_more_tokens(exact(3), gain=0.03)
    runs = runs[(runs["seed"] > 0) | (runs["tokens"] < runs["tokens"].max())]
    table = budget_differences(runs, "ffn", "generic", "loss_test_prefix")
    assert (table["seeds"] == 2).all()
    np.testing.assert_allclose(table["difference"], -0.03, atol=1e-12)


def test_text_that_came_again_is_compared_with_as_much_fresh_text() -> None:
    fresh = exact(3)
    again = fresh.assign(
        arm=fresh["arm"] + "-again",
        epochs=4.0,
        loss_test_prefix=fresh["loss_test_prefix"] + 0.05 * (1 + (fresh["arm"] == "ffn")),
    )
    both = pd.concat([fresh, again], ignore_index=True)
    table = compare_arms(both, ["prefix"], "test")
    cost = table[table["against"] == FRESH].groupby("arm")["difference"].agg(["min", "max", "size"])
    expected = pd.DataFrame(
        {"min": [0.05, 0.1, 0.05], "max": [0.05, 0.1, 0.05], "size": [5, 3, 3]},
        index=pd.Index(["dense-again", "ffn-again", "generic-again"], name="arm"),
    )
    pd.testing.assert_frame_equal(cost, expected)
    # Dense and generic models of an arm's own text alone are what it is compared with.
    plain = compare_arms(fresh, ["prefix"], "test").set_index(["anchor", "against"])
    own = table[table["arm"] == "ffn"].set_index(["anchor", "against"])
    pd.testing.assert_frame_equal(own, plain)
    repeated = table[(table["arm"] == "ffn-again") & (table["against"] == EQUAL_RUNTIME)]
    alone = plain.xs(EQUAL_RUNTIME, level="against")["difference"]
    np.testing.assert_allclose(repeated["difference"], alone + 0.05, atol=1e-12)


def test_epochs_are_counted_over_distinct_tokens() -> None:
    frame = make_runs(1, noise=0.0)
    frame = frame[frame["status"] == "done"].assign(unique_tokens=TOKENS // 4)
    frame.loc[frame["arm"] == "ffn", "unique_tokens"] = TOKENS
    runs = one_count_a_budget(frame)
    assert set(runs.loc[runs["arm"] == "ffn", "epochs"]) == {1.0}
    assert set(runs.loc[runs["arm"] != "ffn", "epochs"]) == {4.0}
