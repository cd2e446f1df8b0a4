"""Text to a Dataset: windows, vectors, tree, paths, packed rows. Cached by what goes in."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from core.config import DataConfig, TreeConfig
from core.corpus.packing import pack_rows
from core.corpus.prepare import WindowStore, prepare_windows
from core.corpus.progress import follow
from core.corpus.windows import SplitWindows, prefix_tokens
from core.dataset import PADDING, Dataset, Rows, Windows, dataset_folder, is_prepared
from core.identity import tree_fingerprint
from core.retrieval.embedders import Embedder, new_embedder
from core.retrieval.keys import window_keys
from core.retrieval.kmeans import Vectors
from core.retrieval.random_tree import random_tree
from core.retrieval.report import agreement, chance_agreement, leaf_sizes
from core.retrieval.tree import ClusterTree
from core.writing import whole_folder

Arrays = dict[str, NDArray[Any]]
HELD_OUT = ("validation", "test")


def prepare(data: DataConfig, tree: TreeConfig, cache: Path, device: str = "cpu") -> Dataset:
    """The dataset of a run, made once and mapped from `cache` after that.

    Raises InputError for missing or too little text, or a tree too deep for it.
    """
    folder = dataset_folder(cache, tree_fingerprint(data, tree))
    if not is_prepared(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not is_prepared(folder):
                _build(data, tree, cache, folder, device)
    return _load(folder)


def _build(data: DataConfig, tree: TreeConfig, cache: Path, folder: Path, device: str) -> None:
    store = prepare_windows(data, cache)
    with whole_folder(folder) as partial:
        _fill(store, data, tree, partial, new_embedder(tree, cache, device))


def _fill(
    store: WindowStore, data: DataConfig, tree: TreeConfig, folder: Path, embedder: Embedder
) -> None:
    train = store.split("train")
    embedder.fit(follow(train.key_texts(None), "fitting the embedder", len(train)))

    def vectors(split: SplitWindows, prefix: float | None) -> Vectors:
        keys = window_keys(split, tree, prefix)
        return embedder.embed(follow(keys, f"embedding {split.folder.name} windows", len(split)))

    def paths(split: SplitWindows, prefix: float | None) -> NDArray[np.int32]:
        return clusters.route(vectors(split, prefix))

    train_nd = vectors(train, None)
    clusters = _clusters(tree, train_nd)
    clusters.save(folder / "tree.safetensors")
    embedder.save(folder / "embedder")
    path_nl = clusters.route(train_nd) if tree.key == "document" else paths(train, tree.prefix)
    del train_nd  # half of what is in memory here
    arrays = _train_arrays(train, path_nl, data, tree)
    for name in HELD_OUT:
        arrays |= _held_out_arrays(name, store.split(name), paths, data, tree)
    arrays["token_bytes_v"] = store.token_bytes_v
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "meta.json").write_text(json.dumps(_meta(arrays, clusters, store), indent=2))


def _clusters(tree: TreeConfig, train_nd: Vectors) -> ClusterTree:
    if tree.embedder == "random":
        return random_tree(tree.branching)
    return ClusterTree.fit(train_nd, tree.branching, tree.seed)


def _train_arrays(
    train: SplitWindows, path_nl: NDArray[np.int32], data: DataConfig, tree: TreeConfig
) -> Arrays:
    rows = pack_rows(
        np.diff(train.offsets), path_nl, train.offsets, train.tokens, data.seq_len, tree.seed
    )
    return {f"train.{name}": getattr(rows, name) for name in Rows.__dataclass_fields__}


def _held_out_arrays(
    name: str,
    split: SplitWindows,
    paths: Callable[[SplitWindows, float | None], NDArray[np.int32]],
    data: DataConfig,
    tree: TreeConfig,
) -> Arrays:
    length_n = np.diff(split.offsets).astype(np.int32)
    tokens_nt = np.zeros((len(length_n), data.seq_len + 1), np.uint16)
    tokens_nt[np.arange(data.seq_len + 1) < length_n[:, None]] = split.tokens
    windows = Windows(
        tokens_nt=tokens_nt,
        length_n=length_n,
        prefix_n=prefix_tokens(length_n, tree.prefix),
        path_prefix_nl=paths(split, tree.prefix),
        path_document_nl=paths(split, None),
        source_n=np.asarray(split.source),
    )
    return {f"{name}.{field}": getattr(windows, field) for field in Windows.__dataclass_fields__}


def _meta(arrays: Arrays, clusters: ClusterTree, store: WindowStore) -> dict[str, Any]:
    segments_nt = arrays["train.segments_nt"]
    predicted = (segments_nt[:, 1:] == segments_nt[:, :-1]) & (segments_nt[:, 1:] != PADDING)
    return {
        "clusters": clusters.clusters,
        "train_tokens": int(predicted.sum()),
        "agreement": agreement(arrays["test.path_prefix_nl"], arrays["test.path_document_nl"]),
        "chance_agreement": chance_agreement(arrays["test.path_document_nl"]),
        "leaf_rows": leaf_sizes(arrays["train.path_nl"], clusters.clusters[-1]).tolist(),
        "sources": [source["name"] for source in store.meta["sources"]],
        "digest": _digest(arrays),
    }


def _digest(arrays: Arrays) -> str:
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(name.encode())
        total.update(np.ascontiguousarray(arrays[name]).tobytes())
    return total.hexdigest()[:12]


def _load(folder: Path) -> Dataset:
    meta = json.loads((folder / "meta.json").read_text())

    def mapped(name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return array

    def held_out(name: str) -> Windows:
        return Windows(
            **{field: mapped(f"{name}.{field}") for field in Windows.__dataclass_fields__}
        )

    return Dataset(
        train=Rows(**{field: mapped(f"train.{field}") for field in Rows.__dataclass_fields__}),
        validation=held_out("validation"),
        test=held_out("test"),
        token_bytes_v=np.array(mapped("token_bytes_v")),
        clusters=tuple(meta["clusters"]),
        train_tokens=meta["train_tokens"],
        agreement=tuple(meta["agreement"]),
        sources=tuple(meta["sources"]),
        digest=meta["digest"],
    )
