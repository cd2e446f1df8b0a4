"""Common facts against the long tail: where does a memory help?

After the split into common and specific knowledge of arXiv 2510.02375, here by how often the
training text states a fact, which is counted, not judged.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.paired import paired_differences

TAIL, COMMON = ("1", "2-3"), ("16-63", "64+")
GROUPS = {"long tail (stated 1 to 3 times)": TAIL, "common (16 times or more)": COMMON}
FACT = ["probe", "subject"]
# All are lower where a model knows more, as a loss is.
MISSED, NOT_FIRST = "facts missed (share)", "answer not ranked first (share)"
ANSWER_LOSS = "loss of the answer (nats)"
MEASURES = (MISSED, NOT_FIRST, ANSWER_LOSS)


def answer_differences(
    runs: pd.DataFrame, probes: pd.DataFrame, arms: Sequence[str], against: Sequence[str]
) -> pd.DataFrame:
    """What each of `arms` makes of facts minus what each of `against` does, at equal size.

    A run counts by the mean over the facts of a group that were asked by that path. Columns of
    `paired_differences`, and path, facts (the group), measure.
    """
    asked = by_route(with_losses(probes))
    tables = []
    for (path, words), own in asked.groupby(["route", asked["bucket"].map(_group)], sort=False):
        for measure in MEASURES:
            known = runs.assign(value=runs["run_id"].map(own.groupby("run_id")[measure].mean()))
            tables += [
                paired_differences(known, arm, other, "value").assign(
                    path=str(path), facts=str(words), measure=measure
                )
                for arm in arms
                for other in against
                if arm != other
            ]
    found = [table for table in tables if len(table)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


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
