"""results/<grid>/report.html: one file with the question, the data, the figures and the words on
them.
"""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis.compare import MEASURES
from analysis.result import FitResult
from analysis.study import Study
from analysis.style import count, save, to_svg
from analysis.tune import write_table


def write_report(study: Study, results: Path, commands: list[str]) -> Path:
    """Figures with their data, fits as JSON, and the page, below results/<grid>."""
    folder = results / study.grid
    for plot in study.plots:
        save(plot, folder / "figures", commands[-1])
    for (key, arm), result in study.fits.items():
        result.write(folder / "fits" / f"{arm}_{key}.json")
    for name, table in _tables(study).items():
        write_table(table, folder / f"{name}.csv")
    page = render(study, commands)
    partial = folder / "report.html.partial"
    partial.write_text(page)
    partial.replace(folder / "report.html")
    return folder / "report.html"


def _tables(study: Study) -> dict[str, pd.DataFrame]:
    worth = [
        table.assign(key=key, measure=measure)
        for (key, measure), table in study.multipliers.items()
        if len(table)
    ]
    found = {"differences": study.differences, "exponents": study.exponents}
    found["multipliers"] = pd.concat(worth, ignore_index=True) if worth else pd.DataFrame()
    return {name: table for name, table in found.items() if len(table)}


def render(study: Study, commands: list[str]) -> str:
    """The page; it asks for nothing from a network."""
    environment = Environment(
        loader=PackageLoader("analysis", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(number=number, interval=interval, count=count)
    return environment.get_template("report.html").render(
        study=study,
        plots=[(plot, Markup(to_svg(plot.figure))) for plot in study.plots],
        fits=[(key, arm, result) for (key, arm), result in study.fits.items()],
        multipliers={
            key: table.to_dict("records")
            for (key, measure), table in study.multipliers.items()
            if measure == "n_runtime"
        },
        measures=_other_measures(study),
        words=MEASURES,
        exponents=study.exponents.to_dict("records"),
        facts=study.facts.to_dict("records"),
        choice=study.choice,
        laws=study.choice.table.to_dict("records") if study.choice else [],
        differences=study.differences.to_dict("records"),
        excluded=study.runs.excluded.to_dict("records"),
        data=summary(study.runs.done),
        commands=commands,
        finished=_last(study.runs.done["finished"]),
    )


def _other_measures(study: Study) -> list[dict[str, Any]]:
    """Multipliers under the prefix key in every measure, a row a point."""
    tables = {measure: t for (key, measure), t in study.multipliers.items() if key == "prefix"}
    first = next(iter(tables.values()))
    return [
        {"arm": row["arm"], "anchor": row["anchor"]}
        | {measure: table["multiplier"].iloc[i] for measure, table in tables.items()}
        for i, row in enumerate(first.to_dict("records"))
    ]


def summary(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """A line per arm and size: parameters, tokens, seeds, mean losses."""
    keys = ["arm", "memory_type", "anchor", "n_anchor", "n_fetched", "n_bank", "tokens"]
    table = runs.groupby(keys, sort=False, as_index=False).agg(
        seeds=("seed", "nunique"),
        prefix=("loss_test_prefix", "mean"),
        document=("loss_test_document", "mean"),
        spread=("loss_test_prefix", "std"),
    )
    table = table.sort_values(["arm", "n_anchor", "tokens"], kind="stable")
    return [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False)]


def number(value: float, digits: int = 4) -> str:
    """`digits` significant digits; a dash where there is no number."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}g}"


def interval(result: FitResult, name: str) -> str:
    """` [low, high]`, or nothing."""
    own = result.intervals.get(name)
    return f"[{number(own.low, 3)}, {number(own.high, 3)}]" if own else ""


def _last(finished: pd.Series) -> str:
    """When the newest run ended; the page carries no time of its own, so that it can be made
    twice.
    """
    stamps = [stamp for stamp in finished if stamp]
    return (
        datetime.fromisoformat(max(stamps)).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
        if stamps
        else ""
    )
