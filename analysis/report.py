"""results/<grid>/report.html: one file with the question, the data, the figures and the words on
them.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis.comparisons import random_arms
from analysis.digits import written
from analysis.drawing import told_apart
from analysis.multiplier import MEASURES
from analysis.result import FitResult
from analysis.seeds import POINT
from analysis.study import KEYS, Study
from analysis.style import count, save
from core.record import write_csv
from core.writing import write_text


def write_report(study: Study, results: Path, commands: list[str]) -> Path:
    """Figures with their data, fits as JSON, and the page, below results/<grid>."""
    folder = results / study.grid
    for plot in study.plots:
        save(plot, folder / "figures", commands[-1])
    for (key, arm), fitted in study.fits.items():
        fitted.result.write(folder / "fits" / f"{arm}_{key}.json")
    for name, table in tables(study).items():
        write_csv(written(table), folder / f"{name}.csv")
    write_text(folder / "report.html", render(study, commands))
    return folder / "report.html"


def tables(study: Study) -> dict[str, pd.DataFrame]:
    """What is kept as CSV beside the page, by name, without the empty ones."""
    worth = [
        table.assign(key=key, measure=measure)
        for (key, measure), table in study.multipliers.items()
        if len(table)
    ]
    found = {
        "differences": study.differences,
        "controls": study.controls,
        "facts": study.facts,
        "fact_multipliers": study.fact_multipliers,
        "exponents": study.exponents,
        "minima": study.optima.minima,
    }
    found["multipliers"] = pd.concat(worth, ignore_index=True) if worth else pd.DataFrame()
    return {name: table for name, table in found.items() if len(table)}


def render(study: Study, commands: list[str]) -> str:
    """The page; it asks for nothing from a network."""
    template = environment().get_template("report.html")
    return template.render(
        study=study,
        plots=[(plot, Markup(plot.svg)) for plot in study.plots],
        worth=_worth(study),
        words=MEASURES,
        random=random_arms(study.runs.done),
        differences=rows(study.at_main_budget(study.differences)),
        controls=rows(study.at_main_budget(study.controls)),
        exponents=rows(study.exponents),
        moves=moves(study.exponents),
        facts=rows(study.at_main_budget(study.facts)),
        fact_multipliers=rows(study.at_main_budget(study.fact_multipliers)),
        excluded=rows(study.runs.excluded),
        data=summary(study.runs.done),
        commands=commands,
        finished=_last(study.runs.done["finished"]),
    )


def environment() -> Environment:
    """Of the templates beside this module, with our filters."""
    made = Environment(
        loader=PackageLoader("analysis", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    made.filters.update(number=number, interval=interval, count=count, layers=layers, named=named)
    return made


def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """What the template loops over."""
    return [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False)]


def named(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows with `point`: anchor, layers with memory, and the sizes in which rows alike differ."""
    if table.empty:
        return []
    places = [row["anchor"] + layers(row) for row in rows(table)]
    return rows(table.assign(point=told_apart(pd.Series(places, index=table.index), table)))


def _worth(study: Study) -> dict[str, list[dict[str, Any]]]:
    """Per key a row a point: the runtime multiplier in full, the other measures beside it."""
    return {
        key: [
            row | {m: study.multipliers[key, m]["multiplier"].iloc[i] for m in MEASURES}
            for i, row in enumerate(rows(study.multipliers[key, "n_runtime"]))
        ]
        for key in KEYS
    }


def moves(exponents: pd.DataFrame) -> list[dict[str, Any]]:
    """Smallest and largest exponent of each arm over the ways to count N."""
    spans = exponents.groupby("arm", sort=True)["alpha"].agg(["min", "max"]).reset_index()
    return rows(spans[spans["max"].notna()])


def summary(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """A line per point and learning rates: parameters, tokens, seeds, mean losses."""
    keys = [*POINT, "lr", "memory_lr"]
    table = runs.groupby(keys, sort=False, as_index=False, dropna=False).agg(
        seeds=("seed", "nunique"),
        prefix=("loss_test_prefix", "mean"),
        document=("loss_test_document", "mean"),
        spread=("loss_test_prefix", "std"),
    )
    table = table.sort_values(["arm", "n_anchor", "tokens"], kind="stable")
    return rows(table)


def number(value: float, digits: int = 4) -> str:
    """`digits` significant digits; a dash where there is no number."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}g}"


def layers(row: Mapping[str, Any]) -> str:
    """Those that hold a memory, where not all do."""
    placement = row["placement"]
    if not isinstance(placement, str) or not placement:
        return ""
    depth = int(str(row["anchor"]).split("x")[0])
    everywhere = "-".join(map(str, range(depth)))
    return f" in layers {placement}" if placement != everywhere else ""


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
