"""A folder of grids gets a page over all, and published findings are judged by our intervals."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.claims import Claim, judge, load_claims
from analysis.collection import members, verdicts
from analysis.paired import SINCE_FEWEST
from analysis.report import named
from analysis.runs import load_runs
from analysis.study import Study, analyse
from core.errors import InputError
from core.record import read_runs, write_runs
from tests.analysis.make_grid import FOLDER
from tests.analysis.test_posthoc import CLAIM, write_tables

BETTER = Claim("memory helps", "yes", "quick", "differences", {"arm": "ffn"}, "below", 0.0)
ROW = {"arm": "ffn", "anchor": "4x32", "seeds": 5, "interval": "95 %, paired over 5 seeds"}


def table(*ends: tuple[float, float], **other: object) -> dict[str, pd.DataFrame]:
    rows = [ROW | {"difference": (a + b) / 2, "low": a, "high": b} | other for a, b in ends]
    return {"differences": pd.DataFrame(rows)}


@pytest.mark.parametrize(
    ("ends", "word"),
    [
        ([(-0.3, -0.1), (-0.2, -0.1)], "confirmed"),
        ([(0.1, 0.3), (0.1, 0.2)], "refuted"),
        ([(-0.1, 0.3)], "undecided"),
        ([(-0.3, -0.1), (0.1, 0.2)], "undecided"),
        ([(-0.3, -0.1), (-0.1, 0.2)], "undecided"),
    ],
)
def test_every_interval_decides(ends: list[tuple[float, float]], word: str) -> None:
    assert judge(BETTER, table(*ends)).word == word
    mirrored = [(-high, -low) for low, high in ends]
    assert judge(replace(BETTER, side="above"), table(*mirrored)).word == word
    moved = [(low + 2, high + 2) for low, high in ends]
    assert judge(replace(BETTER, bound=2.0), table(*moved)).word == word


def test_a_range_of_two_seeds_decides_nothing() -> None:
    few = table((-0.3, -0.1), interval="2 seeds: range, no interval")
    assert judge(BETTER, few).word == "undecided"


@pytest.mark.parametrize("tables", [None, {}, table((-0.3, -0.1), arm="kv")])
def test_what_did_not_run_is_said(tables: dict[str, pd.DataFrame] | None) -> None:
    assert judge(BETTER, tables).word == "not run"


def test_a_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="differences has no column 'colour'"):
        judge(replace(BETTER, rows={"colour": "red"}), table((0.1, 0.2)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1", "not a list"),
        ("- 3", "claim 1: needs"),
        ("- {finding: a, published: b, grid: c, table: differences, rows: {}}", "below or above"),
        ("- {finding: a, published: b, grid: c, table: runs, rows: {}, below: 0}", "'runs'"),
        ("- {finding: a, published: b, grid: c, table: controls, row: {}, below: 0}", "needs"),
    ],
)
def test_faulty_claims_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        load_claims(path)


def test_a_folder_of_grids_gets_its_reports_and_one_over_all(
    tmp_path: Path, write_grid: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_grid(tmp_path / "study")
    (folder / "notes").mkdir()
    (folder / "quick").rename(folder / "small")
    claim = "{finding: memory helps, published: yes it does, grid: %s, table: differences, "
    claim += "rows: {arm: ffn, against: generic, key: prefix}, below: 0}"
    claims = "\n".join(f"- {claim % name}" for name in ("small", "large"))
    (folder / "claims.yaml").write_text(f"{claims}\n{CLAIM}")
    write_tables(folder)
    assert main(["plots", "study", "--results", str(tmp_path)]) == 0
    page = (folder / "report.html").read_text()
    assert 'href="small/report.html"' in page and (folder / "small" / "report.html").is_file()
    assert page.count("memory helps") == 2 and "not run" in page
    assert "1 left out by name" in page
    assert "<small>recipes, 4 seeds</small>" in page
    assert 'src="posthoc/figures/difference_by_source.png"' in page
    assert (folder / "posthoc" / "figures" / "difference_by_source.png").is_file()
    assert "http" not in page
    assert str(folder / "report.html") in capsys.readouterr().out


def test_a_grid_is_no_folder_of_grids(tmp_path: Path, write_grid: Callable[[Path], Path]) -> None:
    results = write_grid(tmp_path)
    assert members(results / "quick") == [] == members(tmp_path / "nothing")
    assert members(results) == ["quick"]


def test_runs_that_count_as_done_and_others_are_one_table(
    tmp_path: Path, write_grid: Callable[[Path], Path]
) -> None:
    results = write_grid(tmp_path)
    whole = load_runs(results, "quick")
    path = results / "quick" / "runs.csv"
    lines = path.read_text().splitlines()
    half = len(lines) // 2
    path.write_text("\n".join(lines[:half]))
    (results / "quick" / "records.csv").write_text("\n".join([lines[0], *lines[half:]]))
    again = load_runs(results, "quick")
    pd.testing.assert_frame_equal(again.done, whole.done)
    pd.testing.assert_frame_equal(again.excluded, whole.excluded)


def test_an_arm_without_runs_of_the_main_budget_is_shown_at_its_own() -> None:
    table = pd.DataFrame({"arm": ["ffn", "ffn", "ffn-warm"], "tokens": [10.0, 20.0, 5.0]})
    shown = Study.at_main_budget(cast(Study, SimpleNamespace(tokens=10.0)), table)
    assert shown["tokens"].tolist() == [10.0, 5.0]


def test_what_compares_budgets_is_shown_at_all_of_them() -> None:
    table = pd.DataFrame({"arm": "ffn", "tokens": [10.0, 20.0], "against": "generic"})
    both = pd.concat([table, table.assign(against="generic" + SINCE_FEWEST)], ignore_index=True)
    shown = Study.at_main_budget(cast(Study, SimpleNamespace(tokens=10.0)), both)
    assert shown["tokens"].tolist() == [10.0, 10.0, 20.0]


def test_claims_are_judged_at_the_main_budget(tmp_path: Path) -> None:
    """Whose mean count of tokens is no whole number and has more digits than a table shows."""
    shutil.copytree(FOLDER, tmp_path / "grid")
    path = tmp_path / "grid" / "runs.csv"
    runs = read_runs(path)
    runs["tokens"] = runs["token_budget"] - 7 * runs["seed"] ** 2  # padding
    write_runs(runs, path)
    text = "- {finding: helps, published: so, grid: grid, table: multipliers, below: 9, rows: %s}"
    rows = "{arm: ffn, key: prefix, measure: n_runtime}"
    (tmp_path / "claims.yaml").write_text(text % rows)
    study = analyse(tmp_path, "grid")
    assert study.tokens != round(study.tokens)
    (verdict,) = verdicts(tmp_path, {"grid": study})
    assert verdict.ours["tokens"].nunique() == 1
    assert len(verdict.ours) == verdict.ours["anchor"].nunique() == 4


def test_rows_alike_are_named_by_the_sizes_in_which_they_differ() -> None:
    table = pd.DataFrame(
        {
            "anchor": ["4x32", "4x32", "4x32", "4x48"],
            "placement": ["0-1-2-3", "0-1-2-3", "3", "0-1-2-3"],
            "n_fetched": 5_376,
            "n_bank": [39_936, 39_936, 39_936, 64_512],
            "tokens": [365_000.0, 1_460_000.0, 365_000.0, 365_000.0],
        }
    )
    points = [row["point"] for row in named(table)]
    assert points == ["4x32, D 365k", "4x32, D 1.46M", "4x32 in layers 3", "4x48"]
    assert named(table.head(0)) == []
