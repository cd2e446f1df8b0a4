"""The split into long tail and common facts."""

import pandas as pd
import pytest

from analysis.facts import split_gains
from analysis.figures_memory import blocking_curve, recall_by_frequency


def asked(runs: pd.DataFrame) -> pd.DataFrame:
    """ffn knows every fact that is stated once; all know the common ones."""
    rows = [
        {"run_id": run, "bucket": bucket, "route": route, "exact": bucket == "64+" or arm == "ffn"}
        for run, arm in zip(runs["run_id"], runs["arm"], strict=True)
        for bucket in ("1", "64+")
        for route in ("prompt", "oracle (bound)")
    ]
    return pd.DataFrame(rows)


def test_gain_is_in_the_tail_where_it_was_put(runs: pd.DataFrame) -> None:
    table = split_gains(runs, asked(runs), "generic").set_index(["arm", "group"])
    tail, common = sorted(table.index.get_level_values("group").unique(), reverse=True)
    assert table.loc[("ffn", tail), "difference"] == pytest.approx(1.0)
    assert table.loc[("ffn", common), "difference"] == pytest.approx(0.0)
    assert table.loc[("dense", tail), "difference"] == pytest.approx(0.0)


def test_figures_of_recall_and_of_blocking_show_every_arm(runs: pd.DataFrame) -> None:
    recall = recall_by_frequency(runs, asked(runs)).data
    assert set(recall["arm"]) == {"dense", "generic", "ffn"}
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
