"""python -m core train FILE.yaml: one run without Ray."""

import argparse
import sys
from pathlib import Path

from core.config import Runtime, load_config
from core.errors import InputError
from core.identity import run_id
from core.record import KEYS


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 for a finished run, 1 for a diverged one, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m core", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train the run that a YAML file describes")
    train.add_argument("config", type=Path)
    train.add_argument("--results", type=Path, default=Path("results"))
    train.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    try:
        return _train(options.config, Runtime(results=options.results, device=options.device))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _train(path: Path, runtime: Runtime) -> int:
    config = load_config(path)
    folder = runtime.results / "runs" / run_id(config)
    from core.train import train_run  # torch takes seconds to import; bad input is refused before

    record = train_run(config, runtime, folder, _print_point)
    print(f"{record.status}: {folder}  {record.cause}")
    for split, keys in KEYS.items():
        losses = {key: getattr(record, f"loss_{split}_{key}") for key in keys}
        shown = "  ".join(f"{key} {loss:.4f}" for key, loss in losses.items())
        print(f"{split} loss, nats/token, second part, by key: {shown}")
    return 0 if record.status == "done" else 1


def _print_point(point: dict[str, float]) -> None:
    print(
        f"step {point['step']:6.0f}  tokens {point['tokens']:10.0f}  loss {point['loss']:.4f}  "
        f"{point['tokens_per_second']:.0f} tokens/CPU s",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
