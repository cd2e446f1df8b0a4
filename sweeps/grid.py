"""A grid file: one question as arms, axes and seeds; read into a list of trials.

# The question, in the file's first comment.
base: {train: {tokens: 2e6}}            fields of a run that all arms share
arms:
  ffn:
    memory: {type: ffn, widths: [8, 4]} fields of this arm, laid on the base
    axes: {anchor: [d32, d64]}          every combination of the axes' values
    zip:                                keys that move together, one mapping a point
      - {train.lr: 1e-2, memory.lr: 3e-3}
seeds: 2                                0 and 1, the same in every arm; or a list
learning_rates: rates.csv               tuned rates by arm, anchor and tokens, beside the grid, or
                                        a list of such tables, of which the first that knows counts;
                                        an arm takes another's by `rates_of: ffn`, a grid
                                        those of another budget of tokens by `rates_at: 2e7`
An arm over learning rates may say `early_stopping: true`; see sweeps.early_stopping.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from core.config import RunConfig, parse_config, parse_section
from core.errors import InputError
from core.identity import run_id
from core.reading import read_yaml
from core.section import Count, Section
from sweeps.axes import Point, check_axes, count_points, expand_axes, leaves, merge, nest
from sweeps.early_stopping import check_early_stopping
from sweeps.names import trial_name
from sweeps.rates import RATE_KEYS, LearningRates

GRIDS = Path(__file__).parent / "grids"
# A slip in an axis would otherwise plan for hours.
MOST_TRIALS = 100_000
# Folders of a results folder that are no grid's.
RESERVED = ("runs", "cache", "artifacts")


class ArmFields(Section):
    """Fields of a run, as a grid may set them; `core.config` checks what they hold."""

    data: dict[str, Any] = Field(default_factory=dict)
    tree: dict[str, Any] = Field(default_factory=dict)
    anchor: str | dict[str, Any] = Field(default_factory=dict)
    memory: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
    evaluate: dict[str, Any] = Field(default_factory=dict)

    def given(self) -> dict[str, Any]:
        """The fields that the file sets."""
        names = ArmFields.model_fields.keys() & self.model_fields_set
        return {name: getattr(self, name) for name in sorted(names)}


class Arm(ArmFields):
    """What is compared: fields laid on the base, and what is swept."""

    rates_of: str | None = None  # the arm whose tuned rates this one takes; none: its own
    early_stopping: Literal[True, False, "always"] = False  # always: even where a law may want all
    axes: dict[str, list[Any]] = Field(default_factory=dict)
    zip: list[Point] = Field(default_factory=list)


class GridFile(Section):
    """The file's top level."""

    base: ArmFields = ArmFields()
    arms: dict[str, dict[str, Any] | None] = Field(min_length=1)
    seeds: int | list[int] = 1
    learning_rates: str | list[str] = ""
    rates_at: Count | None = None  # tokens whose tuned rates all runs take; none: each its own


@dataclass(frozen=True)
class Trial:
    """One run of a grid."""

    arm: str
    name: str
    run_id: str
    config: RunConfig


@dataclass(frozen=True)
class Grid:
    """Trials in the file's order: arms, then axes, then seeds."""

    name: str
    path: Path
    question: str
    trials: tuple[Trial, ...]
    early_stopping: frozenset[str] = frozenset()  # arms whose poor runs are stopped


def load_grid(name: str, seeds: int | None = None) -> Grid:
    """The grid called `name`, or in the file of that path; `seeds` overrides how many it has.

    Raises InputError with file, key and what to change.
    """
    path = find_grid(name)
    content = parse_section(GridFile, read_yaml(path), str(path))
    arms = {a: _read_arm(a, fields, content, path) for a, fields in content.arms.items()}
    listed = _seeds(content.seeds if seeds is None else seeds, path)
    trials = tuple(_trials(content, arms, path, listed))
    _refuse_repeats(trials, path)
    check_early_stopping([a for a, arm in arms.items() if arm.early_stopping is True], trials, path)
    stopping = frozenset(a for a, arm in arms.items() if arm.early_stopping)
    return Grid(path.stem, path, _question(path), trials, stopping)


def find_grid(name: str) -> Path:
    """The file of a grid by name or path."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else GRIDS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in GRIDS.glob("*.yaml")))
        raise InputError(f"grid {name}: no such file; give one of {known}, or the path of a .yaml")
    if path.stem in RESERVED or not re.fullmatch(r"[\w.-]+", path.stem):
        raise InputError(
            f"{path}: the grid's name is its folder in the results; use letters, digits, - and _, "
            f"and none of {', '.join(RESERVED)}"
        )
    return path


def _question(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").lstrip().splitlines()
    comment = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return " ".join(line.lstrip("# ") for line in lines[:comment]).strip()


def _seeds(seeds: int | list[int], path: Path) -> list[int]:
    if isinstance(seeds, int) and seeds > MOST_TRIALS:
        raise InputError(f"{path}: seeds = {seeds}: at most {MOST_TRIALS:,} runs a grid")
    listed = list(range(seeds)) if isinstance(seeds, int) else seeds
    if not listed or min(listed) < 0 or len(set(listed)) < len(listed):
        raise InputError(
            f"{path}: seeds = {seeds}: give a number of at least 1, or a list of different seeds"
        )
    return listed


def _trials(
    content: GridFile, arms: Mapping[str, Arm], path: Path, seeds: list[int]
) -> Iterator[Trial]:
    total = sum(count_points(arm.axes, arm.zip) for arm in arms.values()) * len(seeds)
    if total > MOST_TRIALS:
        raise InputError(f"{path}: {total:,} runs, at most {MOST_TRIALS:,}; shorten axes or seeds")
    rates = _read_rates(content, path)
    base = content.base.given()
    for name, arm in arms.items():
        yield from _arm_trials(
            name, arm, merge(base, arm.given()), seeds, rates, f"{path}: arm {name}"
        )


def _read_rates(content: GridFile, path: Path) -> LearningRates | None:
    given, tokens = content.learning_rates, content.rates_at
    names = given if isinstance(given, list) else [given] if given else []
    if tokens and not names:
        raise InputError(f"{path}: rates_at needs learning_rates; give both")
    try:
        return LearningRates.read([path.parent / n for n in names], tokens) if names else None
    except InputError as error:
        raise InputError(f"{path}: learning_rates: {error}") from None


def _read_arm(name: str, fields: Mapping[str, Any] | None, content: GridFile, path: Path) -> Arm:
    where = f"{path}: arm {name}"
    if not re.fullmatch(r"[\w.+-]+", name):
        raise InputError(f"{where}: use letters, digits, ., +, - and _ in an arm's name")
    arm = parse_section(Arm, fields or {}, where)
    check_axes(arm.axes, arm.zip, arm.given(), where)
    swept = [*arm.axes, *(arm.zip[0] if arm.zip else {})]
    if "seed" in swept:
        raise InputError(f"{where}: seed is no axis; give seeds: for the whole grid")
    if arm.rates_of and not content.learning_rates:
        raise InputError(f"{where}: rates_of needs learning_rates: for the whole grid; give both")
    if content.learning_rates:
        given = {*swept, *leaves(arm.given()), *leaves(content.base.given())}
        for key in sorted(given & set(RATE_KEYS)):
            raise InputError(f"{where}: {key} is set, and learning_rates fills it; remove one")
    return arm


def _arm_trials(
    arm: str,
    spec: Arm,
    values: dict[str, Any],
    seeds: list[int],
    rates: LearningRates | None,
    where: str,
) -> Iterator[Trial]:
    for point in expand_axes(spec.axes, spec.zip):
        nested = merge(values, nest(point))
        if rates:
            nested = merge(
                nested, rates.fill(spec.rates_of or arm, parse_config(nested, where), where)
            )
        for seed in seeds:
            config = parse_config({**nested, "seed": seed}, where)
            yield Trial(arm, trial_name(arm, config, point), _identify(config, where), config)


def _identify(config: RunConfig, where: str) -> str:
    try:
        return run_id(config)
    except InputError as error:  # text that is not there
        raise InputError(f"{where}: data.corpus: {error}") from None


def _refuse_repeats(trials: tuple[Trial, ...], path: Path) -> None:
    """One run may serve two arms, but twice in one arm it would count as two measurements."""
    seen: dict[tuple[str, str], Trial] = {}
    for trial in trials:
        first = seen.setdefault((trial.arm, trial.run_id), trial)
        if first is not trial:
            raise InputError(
                f"{path}: arm {trial.arm}: '{first.name}' and '{trial.name}' are the same run; "
                "remove the repeated value from the axes"
            )
