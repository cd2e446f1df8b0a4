"""What the commands do: each takes parsed options and the command line, and gives the exit
status.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.design import logarithms
from analysis.digits import written
from analysis.figures_law import fit_figure, profiles
from analysis.intervals import Fitted, fit_with_intervals
from analysis.law import Law, Table
from analysis.memory_laws import find_law
from analysis.objectives import Objective, find_objective
from analysis.planner import Budget, Plan, plan
from analysis.profile import Profile, profiles_of
from analysis.report import number, write_report
from analysis.result import FitResult
from analysis.runs import load_runs
from analysis.style import save
from analysis.tables import Columns, read_table, select_rows, take_columns, take_inputs
from analysis.tune import edges, tune
from core.errors import InputError
from core.record import write_csv

DONE, WARNING = 0, 3


def run_plots(options: argparse.Namespace, command: str) -> int:
    """results/GRID/report.html with its figures and fits; a folder of grids gets one over all."""
    from analysis.collection import members, write_collection
    from analysis.study import analyse

    if members(options.results / options.grid):
        print(f"report  {write_collection(options.results / options.grid, command)}")
        return DONE
    study = analyse(options.results, options.grid)
    page = write_report(study, options.results, [f"make sweep GRID={options.grid}", command])
    for (key, arm), fitted in study.fits.items():
        print(f"{arm}, {key} key: {fitted.result.describe()}")
    named = ["run_id", "arm", "anchor", "status", "cause"]
    for row in study.runs.excluded[named].itertuples(index=False):
        print("left out:", *row)
    print(f"figures {page.parent / 'figures'}")
    print(f"report  {page}")
    return DONE


def run_tune(options: argparse.Namespace, command: str) -> int:
    """The best rates as a table; a warning for each at the edge of its range."""
    table = tune(load_runs(options.results, options.grid).tried)
    write_csv(table, options.out)
    print(table.to_string(index=False))
    for warning in edges(table):
        print(f"warning: {warning}", file=sys.stderr)
    return DONE


def run_fit(options: argparse.Namespace, command: str) -> int:
    """fit.json, fit.png, profiles.png and, with --predict, predictions.csv in --out; 0 for a
    converged fit, 3 for one with a warning.
    """
    law = find_law(options.law)
    columns = _read(options, law)
    fitted = _fit(options, law, columns)
    result, found = fitted.result, profiles_of(fitted.result, columns.x, columns.y)
    others = read_table(options.predict) if options.predict else None
    points = take_inputs(others, law, options.x) if others is not None else None
    if points is not None:
        logarithms(law, points)  # refuses sizes that no law has a value at
    result.write(options.out / "fit.json", profiles={own.name: own.to_dict() for own in found})
    if result.usable:
        save(fit_figure(fitted, columns.x, columns.y), options.out, command)
        if found:
            save(profiles(found), options.out, command)
        if others is not None and points is not None:
            write_csv(written(_predicted(others, fitted, points)), options.out / "predictions.csv")
    _print_fit(result, columns, found)
    print(f"written {options.out / 'fit.json'}")
    return DONE if result.converged else WARNING


def _predicted(others: pd.DataFrame, fitted: Fitted, points: Table) -> pd.DataFrame:
    """Adds the expected loss, and between what one new run would lie; empty without refits."""
    low, high = fitted.new_run(points) or (np.nan, np.nan)
    return others.assign(predicted=fitted.result.predict(points), low=low, high=high)


def run_plan(options: argparse.Namespace, command: str) -> int:
    """The best split of a budget by a law fitted to the table."""
    law = find_law(options.law)
    columns = _read(options, law)
    fitted = _fit(options, law, columns)
    budget = Budget(options.flops, options.tokens, options.ram, options.flash)
    best = plan(fitted.result, budget, columns.x, fitted.boot)
    _print_fit(fitted.result, columns)
    _print_plan(best)
    return WARNING if best.notes else DONE


def run_choose(options: argparse.Namespace, command: str) -> int:
    """Laws ranked by their error on the largest values of one column, held out."""
    from analysis.choice import choose, largest

    laws = [find_law(name) for name in options.laws]
    wide = max(laws, key=lambda law: len(law.inputs))
    columns = _read(options, wide)
    if options.hold not in columns.x:
        raise InputError(
            f"--hold {options.hold} is no input; choose one of: {', '.join(columns.x)}"
        )
    held = largest(columns.x[options.hold])
    choice = choose(laws, columns.x, columns.y, held, _objective(options), options.seed)
    print(choice.table.to_string(index=False))
    margin = f"margin {choice.margin:.3g} [{choice.low:.3g}, {choice.high:.3g}]"
    print(f"{choice.verdict}; {margin} in mean absolute log error")
    return DONE


def _objective(options: argparse.Namespace) -> Objective:
    return find_objective(options.objective, options.delta, options.asymmetry)


def _read(options: argparse.Namespace, law: Law) -> Columns:
    frame = select_rows(read_table(options.file), options.where)
    return take_columns(frame, law, options.x, options.y)


def _fit(options: argparse.Namespace, law: Law, columns: Columns) -> Fitted:
    limits = (options.starts, options.resamples, options.seed)
    return fit_with_intervals(law, columns.x, columns.y, _objective(options), *limits)


def _print_fit(result: FitResult, columns: Columns, found: Sequence[Profile] = ()) -> None:
    print(f"{result.law.name}: {result.law.formula}  ({result.law.source})")
    for name, value in result.parameters.items():
        own = result.intervals.get(name)
        span = f"  95 % [{number(own.low, 5)}, {number(own.high, 5)}]" if own else ""
        print(f"  {name:<8}{number(value, 9):>16}{span}")
    print(f"objective {result.value:.9g} ({result.objective.name}, plain sum over {result.n} rows)")
    print(f"starts    {result.starts}, of which {result.agreeing} agree")
    print(f"condition {number(result.condition, 3)}")
    print(f"status    {result.describe()}")
    flat = [f"{own.name}: flat profile, no limit {own.open_sides}" for own in found if own.flat]
    for note in (*result.notes, *columns.left_out, *flat):
        print(f"note      {note}")


def _print_plan(best: Plan) -> None:
    print("plan")
    for name in ("N", "M", "W", "D", "loss"):
        low, high = best.intervals.get(name, (float("nan"), float("nan")))
        span = f"[{number(low, 3)}, {number(high, 3)}]"
        print(f"  {name:<5}{number(getattr(best, name), 4):>12}  {span}")
    for note in best.notes:
        print(f"note  {note}")
