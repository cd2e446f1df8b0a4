"""What a gain is drawn against: one line an arm, or one a setting where lines would cross over."""

import pandas as pd

from analysis.figures_gain import gain_against
from tests.analysis.conftest import TOKENS


def lines(runs: pd.DataFrame, column: str) -> dict[str, int]:
    """Points of each named line of the one panel."""
    (axis,) = gain_against(runs, "test", column, "size", "name").figure.axes
    handles, labels = axis.get_legend_handles_labels()
    return {said: len(h[0].get_xdata()) for said, h in zip(labels, handles, strict=True)}


def with_budgets(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of one anchor at two budgets."""
    own = runs[runs["anchor"] == "4x48"].assign(tokens_per_block_parameter=TOKENS / runs["n_bank"])
    twice = own.assign(
        tokens=2 * own["tokens"],
        tokens_per_block_parameter=2 * own["tokens_per_block_parameter"],
    )
    return pd.concat([own, twice], ignore_index=True)


def test_a_line_an_arm(runs: pd.DataFrame) -> None:
    assert lines(with_budgets(runs), "tokens_per_block_parameter") == {"ffn": 2, "generic": 2}


def test_a_line_a_bank_where_an_arm_has_several(runs: pd.DataFrame) -> None:
    runs = with_budgets(runs)
    ffn = runs[runs["arm"] == "ffn"]
    larger = ffn.assign(n_bank=3 * ffn["n_bank"], run_id=ffn["run_id"] + "x")
    found = lines(pd.concat([runs, larger]), "tokens_per_block_parameter")
    assert set(found.values()) == {2}
    assert len(found) == 3 and "generic" in found
    assert all(said.startswith("ffn, W ") for said in found if said != "generic")


def test_sizes_that_move_together_stay_in_one_line(runs: pd.DataFrame) -> None:
    own = runs[runs["anchor"] == "4x48"]
    ffn = own[own["arm"] == "ffn"]
    wider = ffn.assign(n_bank=2 * ffn["n_bank"], n_fetched=2 * ffn["n_fetched"])
    both = pd.concat([own, wider], ignore_index=True)
    assert lines(both, "n_bank")["ffn"] == lines(both, "n_fetched")["ffn"] == 2
