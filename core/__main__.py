"""One run without Ray: train it, ask it for facts, block parts of its bank, merge its parts.

probe and block take the folder of a run, as results/runs/RUN_ID, or of a grid, as results/GRID:
then every finished run of its runs.csv is asked, and one table is written beside it.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from core import commands
from core.config import Runtime, parse_section
from core.device import check_device
from core.errors import InputError


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 for a finished command, 1 for a diverged run, 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        check_device(options.device)
        places = {name: getattr(options, name) for name in ("results", "device", "bank")}
        status: int = options.run(options, parse_section(Runtime, places, "options"))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m core", description=__doc__, formatter_class=shape)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    shared.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    shared.add_argument("--bank", default="device", help="device (default), host or disk")
    added = parser.add_subparsers(dest="command", required=True)

    def command(name: str, what: str) -> argparse.ArgumentParser:
        own = added.add_parser(name, parents=[shared], help=what, description=what)
        own.set_defaults(run=getattr(commands, name))
        return own

    train = command("train", "train the run that a YAML file describes")
    train.add_argument("config", type=Path, help="YAML file with the fields of one run")
    probe = command("probe", "ask for facts, by how often the training text states them")
    block = command("block", "switch off parts of the bank: what is forgotten, what is kept")
    for measure in (probe, block):
        measure.add_argument("folder", type=Path, help="results/runs/RUN_ID or results/GRID")
    _add_parts(block)
    merge = command("merge", "merge runs that share out level 1 with train.tree_part")
    merge.add_argument("target", type=Path, help="folder of the merged run, to be made")
    merge.add_argument("parts", type=Path, nargs="+", help="folders of the runs")
    posthoc = command("posthoc", "train a bank on a frozen pretrained model")
    posthoc.add_argument("config", type=Path, help="YAML file: model, widths, tree, train, ...")
    return parser


def _add_parts(block: argparse.ArgumentParser) -> None:
    """What is blocked; each may be given several times."""
    several: dict[str, Any] = {"action": "append", "default": []}
    best = "the 1/K of the bank that matches each text best (default: each K from 16 to 2)"
    block.add_argument("--best", type=int, metavar="K", help=best, **several)
    cluster = "a cluster and all under it, as 1:0"
    block.add_argument("--cluster", metavar="LEVEL:NUMBER", help=cluster, **several)


if __name__ == "__main__":
    sys.exit(main())
