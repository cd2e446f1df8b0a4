"""python -m analysis: grids to figures and a report; laws fitted to anyone's table."""

import argparse
import math
import shlex
import sys
from pathlib import Path

from core.errors import InputError

EPILOG = "Exit status: 0 done, 2 bad input, 3 a fit or plan with a warning."


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad input, 3 a fit or plan with a warning."""
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(given)
    from analysis import commands  # heavy: not for --help

    try:
        run = getattr(commands, f"run_{options.command}")
        return int(run(options, "python -m analysis " + shlex.join(given)))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__, epilog=EPILOG)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    plots = commands.add_parser("plots", help="fits, figures and report.html of a grid")
    tune = commands.add_parser("tune", help="best rates of a learning-rate grid, as a table")
    for grid in (plots, tune):
        grid.add_argument("grid")
        grid.add_argument("--results", type=Path, default=Path("results"))
    tune.add_argument("--out", type=Path, required=True, metavar="FILE.csv")
    fit = commands.add_parser("fit", help="fit a law to a CSV or JSON-lines file", epilog=EPILOG)
    plan = commands.add_parser("plan", help="best split of a budget", epilog=EPILOG)
    choose = commands.add_parser("choose", help="rank laws by held-out error")
    for table in (fit, plan, choose):
        _table_options(table)
    for single in (fit, plan):
        single.add_argument("--law", required=True)
        single.add_argument("--starts", type=_whole, default=256)
        single.add_argument("--resamples", type=_whole, default=1000, help="of the bootstrap")
    fit.add_argument("--out", type=Path, required=True, metavar="DIR")
    fit.add_argument(
        "--predict", type=Path, metavar="OTHER.csv", help="add predictions for its rows"
    )
    choose.add_argument("--laws", type=_names, required=True, help="comma-separated")
    choose.add_argument("--hold", default="N", help="input whose largest values are held out")
    plan.add_argument("--flops", type=float, default=math.inf, help="for training")
    plan.add_argument("--tokens", type=float, default=math.nan, help="fixes D")
    plan.add_argument(
        "--ram", type=float, default=math.inf, help="bytes for anchor and fetched memory"
    )
    plan.add_argument("--flash", type=float, default=math.inf, help="bytes for the bank")
    return parser


def _table_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path)
    parser.add_argument("--x", type=_names, default=["N", "D"], help="inputs, in the law's order")
    parser.add_argument("--y", default="loss")
    parser.add_argument("--objective", default="log-huber")
    parser.add_argument("--delta", type=float, default=1e-3)
    parser.add_argument(
        "--asymmetry", type=float, default=0.2, help="weight of rows above the curve"
    )
    parser.add_argument("--where", action="append", default=[], help="rows, e.g. 'dataset==\"c4\"'")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _whole(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
