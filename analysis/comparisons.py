"""Which comparisons a grid allows: arms against dense, generic and random, in every measure."""

from collections.abc import Sequence

import pandas as pd

from analysis.drawing import ordered_arms
from analysis.facts import answer_differences
from analysis.figures import Fits
from analysis.multiplier import DENSE, MEASURES, multipliers
from analysis.paired import EQUAL_RUNTIME, JOINT, paired_differences, setting_differences

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
    another type, itself trained jointly, and itself in another setting.

    Columns of `paired_differences`, and `key`; only points of equal size are compared.
    """
    generic, shuffled = arms_of(runs, GENERIC), random_arms(runs)
    routed = [arm for arm in ordered_arms(runs) if arm not in (*generic, *arms_of(runs, DENSE))]
    alike = arms_of(runs, FFN)
    ffn = [arm for arm in alike if arm not in shuffled]
    tables = [
        paired_differences(runs, arm, against, f"loss_{split}_{key}").assign(key=key)
        for key in keys
        for arm in routed
        for against in (*generic, *shuffled, *(() if arm in alike else ffn), EQUAL_RUNTIME, JOINT)
        if against != arm
    ] + [
        setting_differences(runs, arm, f"loss_{split}_{key}").assign(key=key)
        for key in keys
        for arm in routed
    ]
    found = [table for table in tables if len(table)]  # an empty one would make counts floats
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


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
