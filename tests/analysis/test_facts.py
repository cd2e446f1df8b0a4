"""What arms make of facts, common ones and those of the long tail."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from analysis.comparisons import compare_answers
from analysis.facts import ANSWER_LOSS, MISSED, NOT_FIRST, answer_multipliers, by_route
from analysis.figures_memory import (
    answer_loss_by_frequency,
    blocking_curve,
    recall_by_frequency,
)
from analysis.multiplier import multipliers
from analysis.runs import one_count_a_budget
from tests.analysis.conftest import make_runs, true_loss

TAIL, COMMON = "long tail (stated 1 to 3 times)", "common (16 times or more)"
ORACLE = "oracle (bound)"
# What a runtime parameter of an arm counts for in answers of the long tail.
COUNTS = {"dense": 1.0, "generic": 0.5, "ffn": 1.5}


def asked(runs: pd.DataFrame) -> pd.DataFrame:
    """ffn knows every fact that is stated once, and gives half of the others' probability to the
    common one, which all recall. No document holds the fact "c", so the oracle has no path to it.
    """
    return pd.DataFrame(
        [
            answer
            for run_id, arm in zip(runs["run_id"], runs["arm"], strict=True)
            for answer in _answers(run_id, arm == "ffn")
        ]
    )


def _answers(run_id: str, ffn: bool) -> Iterator[dict[str, object]]:
    for bucket, subject in (("1", "a"), ("64+", "b"), ("64+", "c")):
        for route in ("prompt", ORACLE, "off") if ffn else ("on",):
            if (subject, route) != ("c", ORACLE):
                yield {
                    "run_id": run_id,
                    "probe": "capitals",
                    "subject": subject,
                    "bucket": bucket,
                    "route": route,
                    "exact": ffn or bucket == "64+",
                    "rank": 1 if ffn else 2,
                    "logprob": -np.log(2.0) * (ffn and bucket == "64+") - 3.0 * (subject == "c"),
                }


def test_differences_are_where_they_were_put(runs: pd.DataFrame) -> None:
    table = compare_answers(runs, asked(runs)).set_index(["facts", "measure", "path"]).sort_index()
    own = table[table["against"] == "generic"]
    assert (own["arm"] == "ffn").all()
    assert own.loc[(TAIL, MISSED), "difference"].to_numpy() == pytest.approx(-1.0)
    assert own.loc[(TAIL, NOT_FIRST), "difference"].to_numpy() == pytest.approx(-1.0)
    assert own.loc[(COMMON, MISSED), "difference"].to_numpy() == pytest.approx(0.0)
    assert own.loc[(COMMON, ANSWER_LOSS, ORACLE), "difference"].to_numpy() == pytest.approx(
        np.log(2.0)
    )


def test_dense_models_are_read_at_equal_runtime_parameters(runs: pd.DataFrame) -> None:
    table = compare_answers(runs, asked(runs))
    dense = table[(table["against"] == "dense at equal runtime") & (table["arm"] == "generic")]
    assert len(dense)
    assert (dense["difference"].abs() < 1e-12).all()


def test_models_without_a_path_are_asked_what_the_path_was_asked(runs: pd.DataFrame) -> None:
    routed = by_route(asked(runs))
    facts = routed.groupby(["route", "run_id"])["subject"].apply("".join)
    assert set(facts["prompt"]) == {"abc"}
    assert set(facts[ORACLE]) == {"ab"}


def test_models_without_any_path_are_asked_all_the_same(runs: pd.DataFrame) -> None:
    probes = asked(runs)
    assert set(by_route(probes[probes["route"] == "on"])["route"]) == {"prompt"}


def test_figures_of_facts_and_of_blocking_show_every_arm(runs: pd.DataFrame) -> None:
    for figure in (recall_by_frequency, answer_loss_by_frequency):
        data = figure(runs, asked(runs)).data
        assert set(data["arm"]) == {"dense", "generic", "ffn"}
        asked_of = data[data["route"] == "prompt"].groupby("arm")["facts"].sum()
        assert asked_of.nunique() == 1  # dense anchors beyond those with memory are left out
    parts = {"nothing": 0.0, "best 1/2": 0.5, "level 1 cluster 0": 0.25}  # the last is no share
    blocked = pd.concat(
        [
            pd.DataFrame({"run_id": runs["run_id"], "blocking": name, "blocked": share})
            for name, share in parts.items()
        ]
    ).assign(loss=4.0, known=4, kept=3)
    data = blocking_curve(runs, blocked).data
    assert set(data["blocked"]) == {0.0, 0.5}
    assert (data["kept_share"] == 0.75).all()


def falling(seeds: int = 5) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs, and answers whose loss follows a law in the long tail and no size at all elsewhere."""
    made = make_runs(seeds)
    runs = one_count_a_budget(made[made["status"] == "done"].reset_index(drop=True))
    of_seed = np.random.default_rng(0).normal(0.0, 0.3, seeds)
    rows = [
        {"run_id": run_id, "probe": "capitals", "subject": bucket, "bucket": bucket}
        | {"route": route, "exact": False, "rank": 2, "logprob": -loss - of_seed[seed]}
        for run_id, arm, n, seed in runs[["run_id", "arm", "n_runtime", "seed"]].values
        for bucket, loss in (("1", true_loss(COUNTS[arm] * n)), ("64+", 5.0 + 0.1 * (-1) ** seed))
        for route in (("prompt", ORACLE) if arm == "ffn" else ("on",))
    ]
    return runs, pd.DataFrame(rows)


def test_multiplier_of_answers_is_the_one_that_was_put_in() -> None:
    runs, probes = falling()
    table = answer_multipliers(runs, probes).query("facts == @TAIL")
    assert set(table["path"]) == {"prompt", ORACLE}
    known = table[table["basis"] == "interpolated"]
    truth = known["arm"].map(COUNTS)
    np.testing.assert_allclose(known["multiplier"], truth, rtol=0.01)  # interpolation, not noise
    np.testing.assert_allclose(known["low"], truth, rtol=0.03)  # what a seed does to all cancels
    np.testing.assert_allclose(known["high"], truth, rtol=0.03)
    assert (known["interval"] == "95 %, paired over 5 seeds").all()
    (small,) = table[table["basis"] != "interpolated"].drop_duplicates("arm").to_dict("records")
    assert (small["arm"], small["anchor"]) == ("generic", "4x32")
    assert small["basis"] == "outside the dense range: worse than the smallest dense model"
    assert np.isnan(small["multiplier"]) and small["interval"].endswith(", no limit below")
    assert small["high"] == pytest.approx(8 / 9)  # the smallest dense model: N over N + M


def test_where_dense_answers_do_not_improve_with_size_there_is_no_equivalent() -> None:
    runs, probes = falling()
    table = answer_multipliers(runs, probes).query("facts == @COMMON")
    assert len(table)
    assert table[["equivalent", "multiplier", "low", "high"]].isna().all(axis=None)
    assert table["basis"].str.startswith("no dense equivalent: the loss of dense models").all()
    one = runs[(runs["memory_type"] != "none") | (runs["anchor"] == "4x48")]
    assert answer_multipliers(one, probes)["basis"].str.contains("fewer than two dense").all()
    assert answer_multipliers(runs, pd.DataFrame()).empty


def test_a_seed_outside_the_dense_range_widens_the_interval() -> None:
    runs, probes = falling()
    ffn = runs[(runs["arm"] == "ffn") & (runs["anchor"] == "4x32")].sort_values("seed")
    off = probes["run_id"].map(dict(zip(ffn["run_id"], (0.5, -0.1, -0.1, -0.1, -0.1), strict=True)))
    moved = probes.assign(logprob=probes["logprob"] - off.fillna(0.0))
    own = answer_multipliers(runs, moved).query("facts == @TAIL and arm == 'ffn'").iloc[0]
    assert own["anchor"] == "4x32" and own["basis"] == "interpolated"
    assert own["interval"] == "95 %, paired over 5 seeds, no limit below"
    values = -moved[moved["bucket"] == "1"].groupby("run_id")["logprob"].mean()
    inside = multipliers(runs.assign(value=runs["run_id"].map(values)), "value").query(
        "arm == 'ffn'"
    )
    alike = ["multiplier", "low", "high", "interval", "seeds"]
    pd.testing.assert_series_equal(inside.iloc[0][alike], own[alike], check_names=False)
    assert own["seeds"] == 5
