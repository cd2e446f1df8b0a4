"""What a tree is worth before anything trains on it, and the control that breaks it."""

import numpy as np
from numpy.typing import NDArray

Paths = NDArray[np.int32]


def leaf_sizes(path_nl: Paths, leaves: int) -> NDArray[np.int64]:
    """Windows in each leaf, int64 [leaves], empty leaves included."""
    return np.bincount(path_nl[:, -1], minlength=leaves)


def agreement(path_a_nl: Paths, path_b_nl: Paths) -> tuple[float, ...]:
    """Per level, the share of windows that two keys send to the same cluster."""
    return tuple((path_a_nl == path_b_nl).mean(axis=0).tolist())


def chance_agreement(path_nl: Paths) -> tuple[float, ...]:
    """Per level, the agreement of two unrelated windows: the sum of the squared cluster shares."""
    shares = [np.bincount(level_n) / len(path_nl) for level_n in path_nl.T]
    return tuple(float(share_c @ share_c) for share_c in shares)


def shuffle_paths(path_nl: Paths, seed: int) -> Paths:
    """The same paths handed to other windows: the wrong-path control.

    No window keeps its path, as long as no leaf holds more than half of the windows; beyond that,
    only as many keep it as must.
    """
    rng = np.random.default_rng(seed)
    given_n = rng.permutation(len(path_nl))
    leaf_n = path_nl[:, -1]
    for kept in np.flatnonzero(leaf_n[given_n] == leaf_n):
        # Who neither is in this leaf nor was given it can swap; up to half the windows, one exists.
        others = np.flatnonzero((leaf_n != leaf_n[kept]) & (leaf_n[given_n] != leaf_n[kept]))
        if leaf_n[given_n[kept]] == leaf_n[kept] and len(others):
            other = rng.choice(others)
            given_n[[kept, other]] = given_n[[other, kept]]
    return path_nl[given_n]
