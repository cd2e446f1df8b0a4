"""Which runs compete under early stopping, and which arms may ask for it.

A stopped run is missing from every comparison, and which runs are stopped depends on timing. So an
arm may ask for it where its runs answer nothing but which rates are best, and where the training
loss, by which they are stopped, tells that. `early_stopping: always` asks in spite of both.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.config import RunConfig
from core.errors import InputError
from core.memory_types import BLOCK_TYPES

if TYPE_CHECKING:
    from sweeps.grid import Trial

OTHERWISE = "remove early_stopping, or write early_stopping: always"


def competitors(trials: Iterable["Trial"]) -> list[list["Trial"]]:
    """Trials that share arm, anchor, token budget and seed."""
    groups = defaultdict(list)
    for trial in trials:
        config = trial.config
        groups[trial.arm, config.anchor, config.train.tokens, config.seed].append(trial)
    return list(groups.values())


def check_early_stopping(arms: Iterable[str], trials: Sequence["Trial"], path: Path) -> None:
    """Raises InputError where the runs of an arm may be wanted for more than their rates."""
    for arm in arms:
        if objection := _objection([trial for trial in trials if trial.arm == arm]):
            raise InputError(f"{path}: arm {arm}: early_stopping: {objection}")


def _objection(trials: Sequence["Trial"]) -> str:
    seeds, groups = {trial.config.seed for trial in trials}, competitors(trials)
    if len(seeds) > 1:
        return f"a mean over {len(seeds)} seeds needs every run; give seeds: 1, or {OTHERWISE}"
    if unlike := [group for group in groups if not _differ_in_rates_alone(group)]:
        return (
            f"runs such as '{unlike[0][0].name}' differ from others of their size in more than "
            f"train.lr and memory.lr, so a law may want them all; {OTHERWISE}"
        )
    if all(len(group) == 1 for group in groups):
        return "no two runs of a size differ in train.lr or memory.lr; remove early_stopping"
    if any(_sees_its_targets(trial.config) for trial in trials):
        return (
            "blocks routed by the whole document see what they predict, and their training loss "
            f"does not rank rates; give tree.key: prefix, or {OTHERWISE}"
        )
    return ""


def _differ_in_rates_alone(group: Sequence["Trial"]) -> bool:
    first, *others = (_without_rates(trial.config) for trial in group)
    return all(other == first for other in others)


def _without_rates(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(exclude={"train": {"lr"}, "memory": {"lr"}})


def _sees_its_targets(config: RunConfig) -> bool:
    """benchmarks/early_stopping.csv has what ranking such runs by their training loss costs."""
    return config.memory.type in BLOCK_TYPES and config.tree.key == "document"
