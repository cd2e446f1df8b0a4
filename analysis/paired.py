"""Differences in loss, seed by seed: between arms at equal size, between settings of one arm, and
within a run between keys.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from analysis.law import Floats
from analysis.multiplier import TEXT, dense_curve, dense_runs, packed_like
from analysis.seeds import POINT, pooled, smallest_detectable, t_summary

EQUAL_RUNTIME = "dense at equal runtime"
JOINT = "joint training at equal FLOPs"
FRESH = "fresh text"
SINCE_FEWEST = ", since the fewest tokens"
EQUAL = ["anchor", *TEXT]  # in arms that are compared
EQUAL_MEMORY = ["anchor", "memory_type", "placement", "n_fetched", "n_bank"]
SETTINGS = ["n_anchor", "placement", "n_fetched", "n_bank"]  # in which points of an arm may differ
SAME_SIZE = 0.01  # relative: runtime parameters, or FLOPs, that differ by less count as equal
# Within a run: the path of another window, and no memory, against the right path.
CONTROLS = {
    "shuffled path minus prefix path": ("shuffled", "prefix"),
    "shuffled path minus document path": ("shuffled", "document"),
    "memory off minus prefix path": ("off", "prefix"),
}


def paired_differences(runs: pd.DataFrame, arm: str, against: str, loss: str) -> pd.DataFrame:
    """Loss of `arm` minus that of `against`, seed by seed, at equal anchor, tokens and N + M.

    `against` is an arm's name; or EQUAL_RUNTIME: the same seed's dense curve at N + M; or, for a
    memory that came to a trained anchor, JOINT: the same one trained jointly, at its own tokens;
    or, for text that came again, FRESH: the same model, at as many tokens of which none did.
    Columns: POINT, against, difference, low, high, interval, seeds, detectable, by_seed,
    packed_alike: whether one tree packed the training text of both, as is fair; at equal runtime
    only dense runs that are packed alike are used where there are any.
    `detectable` is the smallest true difference that this many seeds would have shown (5 % level,
    80 % power), from the seeds' spread pooled over the sizes; NaN where nothing was repeated.
    """
    runs = runs[runs[loss].notna()]
    found = list(_compared(runs, runs[runs["arm"] == arm], against, loss))
    table = _table([(point, values.to_numpy()) for point, values, _ in found], against)
    return table.assign(packed_alike=[packed for *_, packed in found])


def budget_differences(runs: pd.DataFrame, arm: str, against: str, loss: str) -> pd.DataFrame:
    """What `paired_differences` finds at each budget of tokens, minus what it finds at the fewest:
    whether the worth of a memory grows with training. Columns as there.
    """
    points, alike = [], []
    runs = runs[runs[loss].notna()]
    settings = [name for name in POINT if name != "tokens"]
    for _, own in runs[runs["arm"] == arm].groupby(settings, sort=True):
        found = list(_compared(runs, own, against, loss))
        for point, values, packed in found[1:]:
            _, fewest, packed_too = found[0]
            if len(change := (values - fewest).dropna()):
                points.append((point, change.to_numpy()))
                alike.append(packed and packed_too)
    return _table(points, against + SINCE_FEWEST).assign(packed_alike=alike)


def _compared(
    runs: pd.DataFrame, own: pd.DataFrame, against: str, loss: str
) -> Iterator[tuple[Any, pd.Series, bool]]:
    """Each point of `own` that has something to be compared with, its differences by seed, and
    whether one tree packed the text of both."""
    for point, group in own.groupby(POINT, sort=True):
        others = _others(runs, group.iloc[0], against)
        if len(values := _between_arms(group, others, against, loss)):
            yield point, values, bool(packed_like(others, group.iloc[0]).all())


def setting_differences(runs: pd.DataFrame, arm: str, loss: str) -> pd.DataFrame:
    """Loss of each point of `arm` minus that of the first one, in the order of the grid, of as many
    tokens and runtime parameters: the worth of a placement, a level, a bank, a split.

    Columns as `paired_differences`; `against` names in what the first differs.
    """
    own = runs[(runs["arm"] == arm) & runs[loss].notna()]
    groups = [group for _, group in own.groupby(POINT, sort=False)]
    found: dict[str, list[tuple[Any, Floats]]] = defaultdict(list)
    alike: dict[str, list[bool]] = defaultdict(list)
    for group in groups:
        point, first = group.iloc[0], next(g for g in groups if _same_size(g, group))
        label = _setting(first.iloc[0], point)
        values = (_by_seed(group, loss) - _by_seed(first, loss)).dropna()
        if label and len(values):
            found[label].append((tuple(point[POINT]), values.to_numpy(dtype=float)))
            alike[label].append(bool(packed_like(first, point).all()))
    tables = [_table(at, label).assign(packed_alike=alike[label]) for label, at in found.items()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _same_size(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    (n, tokens), (m, budget) = (g[["n_runtime", "tokens"]].iloc[0] for g in (one, other))
    return bool(tokens == budget and _near(n, m))


def _by_seed(group: pd.DataFrame, loss: str) -> pd.Series:
    return group.groupby("seed")[loss].mean()


def _setting(first: pd.Series, point: pd.Series) -> str:
    different = [name for name in SETTINGS if first[name] != point[name]]
    return f"its first {', '.join(different)}" if different else ""


def control_differences(runs: pd.DataFrame, split: str) -> pd.DataFrame:
    """CONTROLS of every arm with a path, within each run; columns as `paired_differences`.

    Where a path changes nothing at all, there is none to shuffle: no row.
    """
    routed = runs[runs["n_bank"] > runs["n_fetched"]]
    tables = []
    for words, (key, right) in CONTROLS.items():
        for _, own in routed.groupby("arm", sort=True):
            difference = own[f"loss_{split}_{key}"] - own[f"loss_{split}_{right}"]
            known = own.assign(value=difference)[difference.notna() & bool(difference.ne(0).any())]
            points = (
                (point, group.groupby("seed")["value"].mean().to_numpy(dtype=float))
                for point, group in known.groupby(POINT, sort=True)
            )
            tables.append(_table(points, words))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _table(points: Iterable[tuple[Any, Floats]], against: str) -> pd.DataFrame:
    """A row a point that has values; the spread is pooled over all of them."""
    known = [(point, values) for point, values in points if len(values)]
    spread, free = pooled([values for _, values in known])
    return pd.DataFrame([_row(point, against, values, spread, free) for point, values in known])


def _row(point: Any, against: str, values: Floats, spread: float, free: int) -> dict[str, Any]:
    low, high, words = t_summary(values)
    return dict(zip(POINT, point, strict=True)) | {
        "against": against,
        "difference": float(values.mean()),
        "low": low,
        "high": high,
        "interval": words,
        "seeds": len(values),
        "detectable": smallest_detectable(spread, len(values), free),
        "by_seed": " ".join(f"{value:+.4f}" for value in values),
    }


def _others(runs: pd.DataFrame, point: pd.Series, against: str) -> pd.DataFrame:
    """What a point is compared with: dense runs, or those of an arm with its anchor and size."""
    if against == EQUAL_RUNTIME:
        return dense_runs(runs, point)
    if against == JOINT:
        return _joint_runs(runs, point)
    if against == FRESH:
        return _fresh_runs(runs, point)
    equal = (runs[EQUAL] == point[EQUAL]).all(axis=1) & _near(runs["n_runtime"], point["n_runtime"])
    others = runs[equal & (runs["arm"] == against)]
    return _most_alike(others, point) if len(others) else others


def _most_alike(others: pd.DataFrame, point: pd.Series) -> pd.DataFrame:
    """Placed as the point is, or else as the first of them; of those, of the nearest M."""
    places = others["placement"]
    alike = places == point["placement"]
    others = others[alike if alike.any() else places == places.iloc[0]]
    off = (others["n_fetched"] - point["n_fetched"]).abs()
    return others[off == off.min()]


def _near(given: Any, wanted: float) -> Any:
    return abs(given - wanted) < SAME_SIZE * wanted


def _joint_runs(runs: pd.DataFrame, point: pd.Series) -> pd.DataFrame:
    """Runs of a point's memory from scratch, as many FLOPs as its anchor's and its own training."""
    equal = (runs[EQUAL_MEMORY] == point[EQUAL_MEMORY]).all(axis=1)
    alike = _near(_all_flops(runs), _all_flops(point))
    return runs[equal & alike & (runs["training"] == "joint") & (point["training"] != "joint")]


def _fresh_runs(runs: pd.DataFrame, point: pd.Series) -> pd.DataFrame:
    """Runs of a point's model on as many tokens, where the point's own came again."""
    same = [*EQUAL_MEMORY, "n_anchor", "training", "tokens"]
    equal = (runs[same] == point[same]).all(axis=1) & packed_like(runs, point)
    return runs[equal & (runs["epochs"] == 1) & (point["epochs"] > 1)]


def _all_flops(of: Any) -> Any:
    """Of both stages, by their token budgets: padding counts in both, or in neither."""
    return of["flops_per_token"] * of["token_budget"] + of["start_flops"]


def _between_arms(group: pd.DataFrame, others: pd.DataFrame, against: str, loss: str) -> pd.Series:
    """By seed."""
    n_runtime, of_seed = float(group["n_runtime"].iloc[0]), _by_seed(group, loss)
    same_seed = [others[others["seed"] == seed] for seed in of_seed.index]
    if against == EQUAL_RUNTIME:
        curves = [dense_curve(runs, loss, "n_runtime") for runs in same_seed]
        theirs = [curve.loss_at(n_runtime) if curve else float("nan") for curve in curves]
    else:
        theirs = [float(runs[loss].mean()) for runs in same_seed]
    return (of_seed.astype(float) - theirs).dropna()
