"""Common text against long-tail facts: where does a memory help?

After the split into common and specific knowledge of arXiv 2510.02375, here by how often the
training text states a fact, which is counted, not judged.
"""

import pandas as pd

from analysis.seeds import t_summary

TAIL, COMMON = ("1", "2-3"), ("16-63", "64+")
GROUPS = {"long tail (stated 1 to 3 times)": TAIL, "common (16 times or more)": COMMON}


def split_gains(runs: pd.DataFrame, probes: pd.DataFrame, against: str) -> pd.DataFrame:
    """Recall of each arm minus that of `against`, per group of facts, paired by anchor and seed.

    Columns: arm, against, group, difference, low, high, interval, pairs. The path of the prompt's
    own text is compared.
    """
    known = runs.drop_duplicates("run_id")[["run_id", "arm", "anchor", "seed"]]
    joined = by_route(probes.merge(known, on="run_id"))
    joined = joined[joined["route"] == "prompt"]
    rows = []
    for words, buckets in GROUPS.items():
        own = joined[joined["bucket"].isin(buckets)]
        recall = own.groupby(["arm", "anchor", "seed"])["exact"].mean()
        if against not in recall.index.get_level_values("arm"):
            continue
        base = recall.xs(against, level="arm")
        for arm in sorted(set(recall.index.get_level_values("arm")) - {against}):
            difference = (recall.xs(arm, level="arm") - base).dropna().to_numpy(dtype=float)
            if len(difference):
                low, high, interval = t_summary(difference)
                rows.append(
                    {
                        "arm": arm,
                        "against": against,
                        "group": words,
                        "difference": float(difference.mean()),
                        "low": low,
                        "high": high,
                        "interval": interval,
                        "pairs": len(difference),
                    }
                )
    return pd.DataFrame(rows)


def by_route(joined: pd.DataFrame) -> pd.DataFrame:
    """Answers by the routes of a tree; those of models without one, `on`, stand beside each."""
    routed = joined[~joined["route"].isin(["on", "off"])]
    routes = list(routed["route"].unique()) or ["prompt"]
    unrouted = [joined[joined["route"] == "on"].assign(route=route) for route in routes]
    return pd.concat([routed, *unrouted], ignore_index=True)
