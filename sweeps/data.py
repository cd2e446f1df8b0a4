"""The datasets of grids in one file, for a machine without a network."""

import tarfile
from collections.abc import Iterable
from pathlib import Path

from core.config import Runtime
from core.dataset import dataset_folder
from core.identity import tree_fingerprint
from core.prepare import prepare
from core.writing import whole_file
from sweeps.grid import Grid

BUNDLE = "data.tar.xz"  # a third smaller than gzip's


def pack_data(grids: Iterable[Grid], results: Path) -> Path:
    """Prepare the datasets of `grids` and write them to results/data.tar.xz; its path.

    Unpacked in another results folder they are all of the text that the grids' runs read. Raises
    InputError as `core.prepare.prepare` does.
    """
    cache = Runtime(results=results).cache
    configs = (trial.config for grid in grids for trial in grid.trials)
    needed = dict.fromkeys((config.data, config.tree) for config in configs)
    for data, tree in needed:
        prepare(data, tree, cache)
    bundle = results / BUNDLE
    with whole_file(bundle) as partial, tarfile.open(partial, "w:xz") as archive:
        for data, tree in needed:
            folder = dataset_folder(cache, tree_fingerprint(data, tree))
            archive.add(folder, folder.relative_to(results))
    return bundle
