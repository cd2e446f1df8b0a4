"""A finished run, loaded back: anchor and bank, its tokenizer, and the routing of any text."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from core.checkpoint import load_weights, saved_config
from core.config import DataConfig, RunConfig, Runtime, TreeConfig, load_config
from core.dataset import dataset_folder
from core.errors import InputError
from core.identity import run_id, tree_fingerprint
from core.memory.bank import BankPlace
from core.model import BANK_FOLDER, Model, is_weight
from core.paths import taken_paths
from core.prepare import prepare
from core.record import RECORD, read_record
from core.retrieval.embedders import Embedder, load_embedder
from core.retrieval.tree import ClusterTree


def load_run(folder: Path, device: str = "cpu", asked: RunConfig | None = None) -> Model:
    """The trained model of a run's folder, from config.yaml and model.safetensors.

    It rounds as it did in training: on the paths that the run took.

    Raises InputError where a file is missing or damaged, and where the weights are of another
    configuration than config.yaml or than `asked`.
    """
    config = load_config(folder / "config.yaml")
    weights_file = folder / "model.safetensors"
    check_same(saved_config(weights_file), config, weights_file, f"{folder}/config.yaml describes")
    if asked is not None:
        check_same(config, asked, folder, "the one asked for is")
    bank = folder / BANK_FOLDER
    place = BankPlace(folder=bank) if bank.exists() else None
    model = Model.on_paths(config, device, taken_paths(folder), place)
    _fill(model, load_weights(weights_file), weights_file)
    return model


def load_routed(folder: Path, runtime: Runtime) -> tuple[Model, "Router"]:
    """The model of a finished run and the router of the data that it was trained on.

    Raises InputError as `load_run` and `prepare` do, for a run without a record, and where the
    prepared data are not those of the run: other tokens would mean other words.
    """
    model = load_run(folder, runtime.device)
    data, tree = model.config.data, model.config.tree
    prepared = prepare(data, tree, runtime.cache, runtime.device).digest
    trained_on = read_record(folder / RECORD).data_digest
    if trained_on != prepared:
        raise InputError(
            f"{folder} was trained on data {trained_on}, {runtime.cache} holds {prepared}; give "
            "the results folder that the run was made in, or train it again"
        )
    return model, Router.open(data, tree, runtime.cache, runtime.device)


def check_same(found: RunConfig, expected: RunConfig, where: Path, who: str) -> None:
    """Raises InputError where `where` holds another configuration than `who` expects."""
    if found != expected:
        raise InputError(
            f"{where} is of configuration {run_id(found)}, {who} {run_id(expected)} "
            f"({_difference(found, expected)}); give the folder of that run, or train it"
        )


def _difference(found: RunConfig, expected: RunConfig) -> str:
    """The first field in which two configs differ, with both values."""
    ours, theirs = found.model_dump(), expected.model_dump()
    for section, value in ours.items():
        if value == theirs[section]:
            continue
        if not isinstance(value, dict):
            return f"{section}: {value} against {theirs[section]}"
        key = next(key for key in value if value[key] != theirs[section][key])
        return f"{section}.{key}: {value[key]} against {theirs[section][key]}"
    return "no field differs"


def _fill(model: Model, weights: dict[str, Tensor], where: Path) -> None:
    """Every weight from the file; moments, which a finished run does not keep, stay at zero."""
    state = model.state()
    needed = [name for name in state if is_weight(name)]
    shapes = {name: tuple(weights[name].shape) for name in weights}
    if shapes != {name: tuple(state[name].shape) for name in needed}:
        raise InputError(
            f"{where}: its tensors are not those of its configuration; train the run again"
        )
    model.load_state(state | weights)


@dataclass(frozen=True)
class Router:
    """Texts to paths, by the embedder and the tree that a run was trained with."""

    embedder: Embedder
    tree: ClusterTree

    @classmethod
    def open(cls, data: DataConfig, tree: TreeConfig, cache: Path, device: str = "cpu") -> "Router":
        """From `cache`, prepared there first if missing. Raises InputError as `prepare` does."""
        prepare(data, tree, cache, device)
        folder = dataset_folder(cache, tree_fingerprint(data, tree))
        return cls(
            load_embedder(tree, folder / "embedder", cache, device),
            ClusterTree.load(folder / "tree.safetensors"),
        )

    def route(self, texts: Iterable[str]) -> NDArray[np.int32]:
        """Paths int32 [n, levels] of any texts; in a random tree, each by the hash of itself."""
        return self.tree.route(self.embedder.embed(texts))
