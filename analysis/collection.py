"""Several grids in one folder, such as results/reference: a report of each, and a page over all,
with what a bank does to a frozen pretrained model where that was tried.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from analysis import posthoc
from analysis.claims import Verdict, judge, load_claims
from analysis.comparisons import random_arms
from analysis.digits import written
from analysis.report import environment, rows, tables, write_report
from analysis.runs import tables_of
from analysis.study import KEYS, Study, analyse
from analysis.style import Plot, save
from core.writing import write_text

CLAIMS = "claims.yaml"
MADE_WITH = ("recipe", "torch", "precision", "device")  # columns of runs.csv


def members(folder: Path) -> list[str]:
    """Grids whose runs lie below `folder`; none where it is a grid itself, or is not there."""
    if tables_of(folder) or not folder.is_dir():
        return []
    return sorted(own.name for own in folder.iterdir() if tables_of(own))


def write_collection(folder: Path, command: str) -> Path:
    """Each grid's report, and FOLDER/report.html. Raises InputError for faulty claims."""
    studies = {grid: analyse(folder, grid) for grid in members(folder)}
    for grid, study in studies.items():
        write_report(study, folder, [f"make sweep GRID={grid}", command])
    pretrained = posthoc.draw(posthoc.load_tables(folder))
    for plot in pretrained:
        save(plot, folder / posthoc.FOLDER / "figures", command)
    write_text(folder / "report.html", render(folder, studies, pretrained, command))
    return folder / "report.html"


def render(folder: Path, studies: dict[str, Study], pretrained: list[Plot], command: str) -> str:
    """The page over all; pictures and reports are linked, not held."""
    return (
        environment()
        .get_template("collection.html")
        .render(
            name=folder.name,
            verdicts=verdicts(folder, studies),
            grids=[_summary(study) for study in studies.values()],
            pretrained=pretrained,
            made_with=_made_with(studies),
            command=command,
        )
    )


def verdicts(folder: Path, studies: dict[str, Study]) -> list[Verdict]:
    """Of the claims in FOLDER/claims.yaml, at each grid's main budget; none without the file."""
    path = folder / CLAIMS
    at_main = {grid: _judged(study) for grid, study in studies.items()}
    at_main[posthoc.FOLDER] = posthoc.load_tables(folder)
    return [judge(c, at_main.get(c.grid)) for c in load_claims(path)] if path.is_file() else []


def _judged(study: Study) -> dict[str, pd.DataFrame]:
    """Rows of tables by name, as they are written."""
    found = {
        name: study.at_main_budget(table)
        for name, table in tables(study).items()
        if "tokens" in table
    }
    return {name: written(table) for name, table in found.items()}


def _summary(study: Study) -> dict[str, Any]:
    """What the page says of one grid: its headline differences, without random trees."""
    found, excluded = study.at_main_budget(study.differences), study.runs.excluded
    if len(found):
        headline = found["key"] == KEYS[0]
        found = found[headline & ~found["arm"].isin(random_arms(study.runs.done))]
    return {
        "name": study.grid,
        "question": study.question,
        "done": len(study.runs.done),
        "excluded": len(excluded),
        "picture": study.plots[0].name,
        "differences": rows(found),
    }


def _made_with(studies: dict[str, Study]) -> list[dict[str, Any]]:
    """Which versions the runs of each grid were made with, and how many of each."""
    counted = [
        study.runs.done.groupby(list(MADE_WITH), dropna=False)
        .size()
        .rename("runs")
        .reset_index()
        .assign(grid=grid)
        for grid, study in studies.items()
    ]
    return rows(pd.concat(counted, ignore_index=True))
