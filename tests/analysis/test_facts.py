"""What arms make of facts, common ones and those of the long tail."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from analysis.comparisons import compare_answers
from analysis.facts import ANSWER_LOSS, MISSED, NOT_FIRST, by_route
from analysis.figures_memory import (
    answer_loss_by_frequency,
    blocking_curve,
    recall_by_frequency,
)

TAIL, COMMON = "long tail (stated 1 to 3 times)", "common (16 times or more)"
ORACLE = "oracle (bound)"


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
