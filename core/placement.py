"""Which of the anchor's layers hold memory, at the same fetched budget whatever the placement."""

import re
from math import gcd

# arXiv 2510.02375, table 9, puts memory in 10 of 35 layers.
DEFAULT_SHARE = 10 / 35
ALLOWED = (
    "uniform, early, middle, late (a share of the layers) or early-N, middle-N, late-N, "
    "every-N, or a list of layers as [0, 2]"
)
_NAME = re.compile(r"uniform|(early|middle|late)(-[1-9]\d*)?|every-[1-9]\d*")


def parse_placement(placement: str | tuple[int, ...]) -> str | tuple[int, ...]:
    """The placement as given. Raises ValueError for a name or a list that is none."""
    if isinstance(placement, str):
        if not _NAME.fullmatch(placement):
            raise ValueError(f"allowed: {ALLOWED}")
    elif not placement or sorted(set(placement)) != list(placement):
        raise ValueError("layers must ascend without repeats, as [0, 2]")
    return placement


def place(placement: str | tuple[int, ...], n_layers: int) -> tuple[int, ...]:
    """The layers of an anchor that hold memory, counted from 0.

    early, middle and late take 10/35 of the layers where no number is given; every-N takes the last
    of each N. Raises ValueError for layers that the anchor has not.
    """
    layers = _named(placement, n_layers) if isinstance(placement, str) else placement
    if not layers or layers[0] < 0 or layers[-1] >= n_layers:
        raise ValueError(
            f"memory.placement {placement} does not fit the anchor's layers 0 to {n_layers - 1}; "
            "name fewer layers or a deeper anchor"
        )
    return layers


def _named(placement: str, n_layers: int) -> tuple[int, ...]:
    name, _, number = placement.partition("-")
    if name == "uniform":
        return tuple(range(n_layers))
    if name == "every":
        return tuple(range(int(number) - 1, n_layers, int(number)))
    count = int(number or max(1, round(DEFAULT_SHARE * n_layers)))
    start = {"early": 0, "middle": (n_layers - count) // 2, "late": n_layers - count}[name]
    return tuple(range(start, start + count))


def width_quantum(n_layers: int, sites: int) -> int:
    """Widths per layer of the uniform placement must be multiples of this.

    Then r x n_layers / sites is whole, and `sites` layers hold what all layers would.
    """
    return sites // gcd(n_layers, sites)
