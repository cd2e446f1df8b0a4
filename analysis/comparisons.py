"""Which comparisons a grid allows: arms against dense, generic and random, in every measure."""

from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.drawing import ordered_arms
from analysis.facts import answer_differences
from analysis.figures import Fits
from analysis.multiplier import DENSE, MEASURES, multipliers
from analysis.paired import (
    EQUAL_RUNTIME,
    FRESH,
    JOINT,
    budget_differences,
    paired_differences,
    setting_differences,
)

GENERIC, RANDOM, FFN = "generic", "random", "ffn"
Worth = dict[tuple[str, str], pd.DataFrame]  # by (key, measure)


def multiplier_tables(runs: pd.DataFrame, fits: Fits, keys: Sequence[str], split: str) -> Worth:
    """Multipliers of every point with memory, under each key and in each measure."""
    dense = [arm for arm in arms_of(runs, DENSE) if (keys[0], arm) in fits]
    tables = {}
    for key in keys:
        for measure in MEASURES:
            fit = fits[key, dense[0]].result if dense and measure == "n_runtime" else None
            tables[key, measure] = multipliers(runs, f"loss_{split}_{key}", measure, fit)
    return tables


def compare_arms(runs: pd.DataFrame, keys: Sequence[str], split: str) -> pd.DataFrame:
    """Every routed arm against each generic arm, each arm on a random tree, dense, ffn if it is of
    another type, itself trained jointly, and itself in another setting; what it gains over generic
    and dense against what it gains at the fewest tokens; and any arm whose text came again against
    fresh text.

    Columns of `paired_differences`, and `key`; only points of equal size are compared.
    """
    tables = [
        table.assign(key=key)
        for compare in (_with_others, _with_themselves, _with_fewer_tokens, _with_fresh_text)
        for key in keys
        for table in compare(runs, f"loss_{split}_{key}")
    ]
    found = [table for table in tables if len(table)]  # an empty one would make counts floats
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _with_others(runs: pd.DataFrame, loss: str) -> Iterator[pd.DataFrame]:
    generic, shuffled, alike = arms_of(runs, GENERIC), random_arms(runs), arms_of(runs, FFN)
    ffn = [arm for arm in alike if arm not in shuffled]
    for arm in routed_arms(runs):
        for against in (*generic, *shuffled, *(() if arm in alike else ffn), EQUAL_RUNTIME, JOINT):
            if against != arm:
                yield paired_differences(runs, arm, against, loss)


def _with_themselves(runs: pd.DataFrame, loss: str) -> Iterator[pd.DataFrame]:
    for arm in routed_arms(runs):
        yield setting_differences(runs, arm, loss)


def _with_fewer_tokens(runs: pd.DataFrame, loss: str) -> Iterator[pd.DataFrame]:
    for arm in routed_arms(runs):
        for against in (*arms_of(runs, GENERIC), EQUAL_RUNTIME):
            yield budget_differences(runs, arm, against, loss)


def _with_fresh_text(runs: pd.DataFrame, loss: str) -> Iterator[pd.DataFrame]:
    for arm in ordered_arms(runs[runs["epochs"] > 1]):
        yield paired_differences(runs, arm, FRESH, loss)


def routed_arms(runs: pd.DataFrame) -> list[str]:
    """Arms that are neither dense nor generic, in the order of figures."""
    others = (*arms_of(runs, GENERIC), *arms_of(runs, DENSE))
    return [arm for arm in ordered_arms(runs) if arm not in others]


def arms_of(runs: pd.DataFrame, kind: str) -> list[str]:
    """Arms of one memory type, by name."""
    return sorted(runs.loc[runs["memory_type"] == kind, "arm"].unique())


def random_arms(runs: pd.DataFrame) -> list[str]:
    """Arms whose memory is routed by a random tree."""
    routed = ~runs["memory_type"].isin([DENSE, GENERIC])
    return sorted(runs.loc[routed & (runs["embedder"] == RANDOM), "arm"].unique())


def compare_answers(runs: pd.DataFrame, probes: pd.DataFrame) -> pd.DataFrame:
    """Of every arm with memory against each generic arm and dense at equal runtime parameters."""
    if probes.empty:
        return probes
    generic = arms_of(runs, GENERIC)
    arms = [arm for arm in ordered_arms(runs) if arm not in arms_of(runs, DENSE)]
    return answer_differences(runs, probes, arms, (*generic, EQUAL_RUNTIME))
