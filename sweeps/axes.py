"""Axes to points: every combination of their values; dotted keys (`train.lr`) to nested ones."""

import itertools
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from core.errors import InputError

Point = dict[str, Any]  # dotted key -> value


def count_points(axes: Mapping[str, list[Any]], zipped: list[Point]) -> int:
    """Points that `expand_axes` gives, without making them."""
    return prod(len(values) for values in axes.values()) * max(1, len(zipped))


def expand_axes(axes: Mapping[str, list[Any]], zipped: list[Point]) -> Iterator[Point]:
    """Every combination of the axes' values, each with every mapping of `zipped`."""
    for values in itertools.product(*axes.values()):
        for together in zipped or [{}]:
            yield dict(zip(axes, values, strict=True)) | together


def check_axes(
    axes: Mapping[str, list[Any]], zipped: list[Point], fixed: Point, where: str
) -> None:
    """Refuse an empty axis, a key that is set twice, and zipped mappings with different keys."""
    for key, values in axes.items():
        if not values:
            raise InputError(f"{where}: axes.{key}: empty; list a value or remove the axis")
    for number, together in enumerate(zipped):
        if not together or together.keys() != zipped[0].keys():
            raise InputError(
                f"{where}: zip[{number}] sets {_listed(together)}, zip[0] sets "
                f"{_listed(zipped[0])}; every entry must set the same keys, at least one"
            )
    _check_conflicts([*axes, *(zipped[0] if zipped else {})], list(leaves(fixed)), where)


def _check_conflicts(swept: list[str], fixed: list[str], where: str) -> None:
    for number, key in enumerate(swept):
        for other in [*swept[number + 1 :], *fixed]:
            if _overlap(key, other):
                named = key if key == other else f"{key} and {other}"
                raise InputError(f"{where}: {named} set twice in one arm; keep one of them")


def _overlap(key: str, other: str) -> bool:
    return key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.")


def _listed(values: Point) -> str:
    return ", ".join(values) or "nothing"


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys of everything that nested values set."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def nest(point: Point) -> dict[str, Any]:
    """Dotted keys as nested mappings: {"train.lr": 1} is {"train": {"lr": 1}}."""
    nested: dict[str, Any] = {}
    for key, value in point.items():
        *sections, name = key.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
    return nested


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `under`: mappings key by key, anything else replaced. Neither changes.

    A size name stands for a mapping, so that `anchor: d64` and `anchor.ffn: 128` go together.
    """
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, str):
            below = {"size": below}
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = merge(below or {}, value) if both else value
    return merged
