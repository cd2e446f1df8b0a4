"""Common facts against the long tail: where does a memory help?

After the split into common and specific knowledge of arXiv 2510.02375, here by how often the
training text states a fact, which is counted, not judged.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.multiplier import dense_by_seed, dense_runs, multipliers, sizes_not_told
from analysis.paired import paired_differences
from analysis.seeds import POINT, t_summary

TAIL, COMMON = ("1", "2-3"), ("16-63", "64+")
GROUPS = {"long tail (stated 1 to 3 times)": TAIL, "common (16 times or more)": COMMON}
FACT = ["probe", "subject"]
# All are lower where a model knows more, as a loss is.
MISSED, NOT_FIRST = "facts missed (share)", "answer not ranked first (share)"
ANSWER_LOSS = "loss of the answer (nats)"
MEASURES = (MISSED, NOT_FIRST, ANSWER_LOSS)
NONE = dict.fromkeys(("equivalent", "multiplier", "low", "high"), np.nan) | {"interval": "none"}


def answer_differences(
    runs: pd.DataFrame, probes: pd.DataFrame, arms: Sequence[str], against: Sequence[str]
) -> pd.DataFrame:
    """What each of `arms` makes of facts minus what each of `against` does, at equal size.

    A run counts by the mean over the facts of a group that were asked by that path. Columns of
    `paired_differences`, and path, facts (the group), measure.
    """
    tables = [
        paired_differences(_with_mean(runs, own, measure), arm, other, "value").assign(
            path=path, facts=facts, measure=measure
        )
        for path, facts, own in _groups(probes)
        for measure in MEASURES
        for arm in arms
        for other in against
        if arm != other
    ]
    return _stack(tables)


def answer_multipliers(runs: pd.DataFrame, probes: pd.DataFrame) -> pd.DataFrame:
    """What every arm with memory is worth in ANSWER_LOSS, in runtime parameters.

    Columns of `multipliers`, and path, facts (the group). Low to high always holds the dense sizes
    that paired differences do not tell from the arm; an end is NaN where these set no limit. Where
    the loss of dense models is not told to fall with size, nothing is equivalent, and `basis` says
    so.
    """
    tables = []
    for path, facts, own in _groups(probes):
        known = _with_mean(runs, own, ANSWER_LOSS).dropna(subset="value")
        table = multipliers(known, "value")
        rows = [{**row, **_against_dense(known, row)} for _, row in table.iterrows()]
        tables.append(pd.DataFrame(rows).assign(path=path, facts=facts))
    return _stack(tables)


def _groups(probes: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Path, group of facts, and its answers with the MEASURES."""
    if probes.empty:
        return
    asked = by_route(with_losses(probes))
    for (path, facts), own in asked.groupby(["route", asked["bucket"].map(_group)], sort=False):
        yield str(path), str(facts), own


def _with_mean(runs: pd.DataFrame, own: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Adds `value`, the mean over facts; NaN where a run was not asked."""
    return runs.assign(value=runs["run_id"].map(own.groupby("run_id")[measure].mean()))


def _stack(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    found = [table for table in tables if len(table)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _against_dense(known: pd.DataFrame, row: pd.Series) -> dict[str, Any]:
    """What takes the place of columns in a row of `multipliers`."""
    own = known[(known[POINT] == row[POINT]).all(axis=1)]
    value_s, dense = own.groupby("seed")["value"].mean(), dense_runs(known, own.iloc[0])
    dense_sn = dense_by_seed(dense, "value", "n_runtime", value_s.index)
    seeds = {"seeds": len(dense_sn)}
    if reason := _no_equivalent(dense_sn):
        return NONE | seeds | {"basis": f"no dense equivalent: {reason}"}
    low, high, words = sizes_not_told(value_s[dense_sn.index].to_numpy(dtype=float), dense_sn)
    found = seeds | {"low": low / row["size"], "high": high / row["size"], "interval": words}
    if np.isfinite(row["multiplier"]):
        return found
    worse = row["loss"] > float(dense["value"].mean())
    end = "worse than the smallest" if worse else "better than the largest"
    return found | {"basis": f"outside the dense range: {end} dense model"}


def _no_equivalent(dense_sn: pd.DataFrame) -> str:
    """Why dense models, a row a seed and a column a size, are the measure of nothing; or empty."""
    if dense_sn.shape[1] < 2:
        return "fewer than two dense sizes were asked with its seeds"
    change_s = (dense_sn.iloc[:, -1] - dense_sn.iloc[:, 0]).to_numpy(dtype=float)
    low, high, _ = t_summary(change_s)
    if high < 0:
        return ""
    told = "the loss of dense models is not told to fall with size"
    return f"{told}, largest minus smallest {change_s.mean():+.2f} [{low:+.2f}, {high:+.2f}]"


def with_losses(probes: pd.DataFrame) -> pd.DataFrame:
    """Answers with the MEASURES: MISSED, by greedy generation, and NOT_FIRST, among all answers of
    its kind, 0 or 1; ANSWER_LOSS, the nats of the right answer.
    """
    measured = {
        MISSED: 1.0 - probes["exact"].astype(float),
        NOT_FIRST: (probes["rank"] > 1).astype(float),
        ANSWER_LOSS: -probes["logprob"],
    }
    return probes.assign(**measured)


def by_route(probes: pd.DataFrame) -> pd.DataFrame:
    """Answers by the routes of a tree; those of models without one, `on`, stand beside each route,
    on the facts that were asked by it.
    """
    unrouted = probes[probes["route"] == "on"]
    routed = probes[~probes["route"].isin(["on", "off"])]
    if routed.empty:
        return unrouted.assign(route="prompt")
    beside = [
        unrouted.merge(own[FACT].drop_duplicates(), on=FACT).assign(route=route)
        for route, own in routed.groupby("route", sort=False)
    ]
    return pd.concat([routed, *beside], ignore_index=True)


def _group(bucket: str) -> str | float:
    return next((words for words, own in GROUPS.items() if bucket in own), np.nan)
