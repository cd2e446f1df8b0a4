"""The grids that come with the project: controls in each, and the equalities that they promise."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from core.accounting import count_parameters, start_flops, training_flops_per_token
from core.config import RunConfig
from sweeps.grid import GRIDS, Grid, load_grid

NAMES = sorted(path.stem for path in GRIDS.glob("*.yaml"))
README = Path(__file__).parents[2] / "README.md"
AT_SIZES = pytest.mark.parametrize(
    ("scale", "d_model"), [("", 32), ("", 48), ("gpu-", 160), ("gpu-", 192)]
)
MATCHED = ("moe", "pkm", "ngram")


def configs(grid: Grid, arm: str, d_model: int | None = None) -> list[RunConfig]:
    """The arm's runs of one seed."""
    seed = grid.trials[0].config.seed
    own = [t.config for t in grid.trials if t.arm == arm and t.config.seed == seed]
    return [config for config in own if d_model in (None, config.anchor.d_model)]


def runtime(config: RunConfig) -> int:
    return count_parameters(config).runtime


def held(config: RunConfig) -> int:
    counts = count_parameters(config)
    return counts.anchor + counts.bank


def bank(config: RunConfig) -> int:
    return count_parameters(config).bank


def total_flops(config: RunConfig) -> float:
    return training_flops_per_token(config) * config.train.tokens + start_flops(config)


def distinct(values: Iterable[RunConfig], of: Callable[[RunConfig], float]) -> set[float]:
    return {of(config) for config in values}


@pytest.mark.parametrize("name", NAMES)
def test_has_controls_and_two_anchors_or_says_why(name: str) -> None:
    grid = load_grid(name)
    assert {"none", "generic"} <= {t.config.memory.type for t in grid.trials}
    routed = {
        t.config.anchor.d_model
        for t in grid.trials
        if t.config.memory.type not in ("none", "generic")
    }
    assert len(routed) > 1 or "One anchor" in grid.question


@pytest.mark.parametrize("name", NAMES)
def test_stands_in_the_readme(name: str) -> None:
    rows = [line for line in README.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    assert any(f"`{name}`" in row.split("|")[1] for row in rows)


@AT_SIZES
def test_memory_types_are_matched_by_size_or_by_flops(scale: str, d_model: int) -> None:
    grid = load_grid(f"{scale}memory-type")
    (ffn,) = configs(grid, "ffn", d_model)
    for block in ("generic", "kv", "lora-qk", "lora-vo", "lora-ffn"):
        (config,) = configs(grid, block, d_model)
        fetched = count_parameters(config).fetched
        assert fetched == pytest.approx(count_parameters(ffn).fetched, rel=0.08)
    for token in MATCHED:
        (size,) = configs(grid, f"{token}-size", d_model)
        assert runtime(size) == pytest.approx(runtime(ffn), rel=0.03)
        assert held(size) == pytest.approx(held(ffn), rel=0.03)
        (flops,) = configs(grid, f"{token}-flops", d_model)
        assert total_flops(flops) == pytest.approx(total_flops(ffn), rel=0.01)
        assert bank(flops) > bank(size)


def test_rates_are_tuned_for_the_very_types_that_are_compared() -> None:
    def memories(name: str) -> set[tuple[str, str]]:
        rates = {"lr": None}
        return {
            (t.arm, t.config.memory.model_copy(update=rates).model_dump_json())
            for t in load_grid(name).trials
        }

    assert memories("type-rates") | memories("token-rates") == memories("memory-type")
    assert memories("gpu-type-rates") == memories("gpu-memory-type")


@AT_SIZES
def test_levels_have_equal_fetch_or_equal_bank(scale: str, d_model: int) -> None:
    grid = load_grid(f"{scale}tree-level")
    fetch, equal = configs(grid, "equal-fetch", d_model), configs(grid, "equal-bank", d_model)
    assert len(distinct(fetch, runtime)) == 1 and len(distinct(fetch, bank)) == 3
    assert len(distinct(equal, bank)) == 1 and len(distinct(equal, runtime)) == 3
    generic = distinct(configs(grid, "generic", d_model), runtime)
    assert distinct([*fetch, *equal], runtime) <= generic


@AT_SIZES
def test_the_runtime_budget_is_split_to_the_parameter(scale: str, d_model: int) -> None:
    grid = load_grid(f"{scale}runtime-split")
    split = configs(grid, "ffn", d_model)
    everything = [*split, *configs(grid, "generic", d_model), *configs(grid, "dense", d_model)]
    assert len(distinct(everything, runtime)) == 1
    assert len(distinct(split, bank)) == 1 and len(split) == 3


@AT_SIZES
@pytest.mark.parametrize("memory", ["ffn", "generic"])
def test_training_modes_cost_the_same(memory: str, scale: str, d_model: int) -> None:
    grid = load_grid(f"{scale}training-mode")
    (joint,) = configs(grid, memory, d_model)
    for mode in ("warm", "frozen"):
        (config,) = configs(grid, f"{memory}-{mode}", d_model)
        assert total_flops(config) == pytest.approx(total_flops(joint), rel=0.01)


@pytest.mark.parametrize("name", ["tokens-per-parameter", "training-mode"])
def test_stated_rates_are_those_of_the_table(name: str) -> None:
    """Points that the grid routing-gain has too come out as the same runs."""
    gain = {t.run_id for t in load_grid("routing-gain").trials}
    shared = {t.arm for t in load_grid(name).trials if t.run_id in gain}
    assert shared == {"dense", "generic", "ffn"}


def test_repeated_text_is_held_against_fresh_text_at_the_same_rates() -> None:
    fresh = {t.config.model_dump_json() for t in load_grid("tokens-per-parameter").trials}
    for trial in load_grid("epochs").trials:
        train = trial.config.train.model_copy(update={"epoch_tokens": None})
        assert trial.config.model_copy(update={"train": train}).model_dump_json() in fresh
