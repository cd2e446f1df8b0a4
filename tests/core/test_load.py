"""What a run saved is what is loaded; anything else is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import core.trainer
from core.checkpoint import load_weights, save_weights
from core.config import RunConfig, Runtime
from core.corpus.prepare import prepare_windows
from core.dataset import Dataset
from core.errors import InputError
from core.evaluate import evaluate
from core.load import Router, load_routed, load_run
from core.memory_types import type_names
from core.model import Model
from core.prepare import prepare
from tests.core.small_runs import MEMORIES, fact_config, train, write_corpus


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def config(results: Path) -> RunConfig:
    return fact_config(write_corpus(results / "text"))


@pytest.fixture(scope="module")
def folder(results: Path, config: RunConfig) -> Path:
    return train(config, results)


def test_loads_what_was_saved(folder: Path, config: RunConfig) -> None:
    model = load_run(folder, asked=config)
    saved = load_weights(folder / "model.safetensors")
    assert model.config == config
    state = model.state()
    assert all(torch.equal(state[name], tensor) for name, tensor in saved.items())
    assert any(name.endswith(".rows") for name in saved)
    assert {name for name in state if name.startswith("anchor.")} <= saved.keys()


def test_there_is_a_small_run_of_every_type() -> None:
    assert tuple(MEMORIES) == type_names()


@pytest.mark.parametrize("name", MEMORIES)
def test_logits_of_every_type_come_back_to_the_bit(
    results: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    trained: list[Model] = []

    def kept(model: Model, dataset: Dataset, config: RunConfig) -> dict[str, float]:
        trained.append(model)
        return evaluate(model, dataset, config)

    monkeypatch.setattr(core.trainer, "evaluate", kept)
    few = {"tokens": 1_000, "batch_size": 4, "precision": "fp32"}
    other = fact_config(Path(config.data.corpus[0]), memory=MEMORIES[name], train=few, seed=1)
    loaded = load_run(train(other, results), asked=other)
    tokens = torch.randint(0, 400, (3, 20), generator=torch.Generator().manual_seed(0))
    segments, path_bl = torch.zeros_like(tokens), torch.tensor([[0, 1], [1, 3], [0, 0]])
    before, after = (
        model.anchor.logits(model.hidden(tokens, segments, model.fetch(path_bl)))
        for model in (trained[-1], loaded)
    )
    assert torch.equal(before, after)


def test_router_finds_the_paths_of_the_dataset(
    folder: Path, results: Path, config: RunConfig
) -> None:
    router = Router.open(config.data, config.tree, results / "cache")
    windows = prepare_windows(config.data, results / "cache").split("test")
    dataset = prepare(config.data, config.tree, results / "cache")
    path_nl = router.route(list(windows.key_texts(config.tree.prefix)))
    assert np.array_equal(path_nl, dataset.test.path_prefix_nl)


def test_other_data_are_refused(folder: Path, results: Path, tmp_path: Path) -> None:
    runtime = Runtime(results=results)
    model, router = load_routed(folder, runtime)
    assert router.route(["gold"]).shape == (1, len(model.config.tree.branching))
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    record = json.loads((copy / "record.json").read_text())
    (copy / "record.json").write_text(json.dumps(record | {"data_digest": "0" * 12}))
    with pytest.raises(InputError, match="was trained on data 000000000000"):
        load_routed(copy, runtime)
    (copy / "record.json").unlink()
    with pytest.raises(InputError, match="no record of a finished run"):
        load_routed(copy, runtime)


def test_another_configuration_is_refused(folder: Path, config: RunConfig, tmp_path: Path) -> None:
    other = config.model_copy(update={"seed": 7})
    with pytest.raises(InputError, match="seed: 0 against 7"):
        load_run(folder, asked=other)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    text = (copy / "config.yaml").read_text()
    assert "batch_size: 4" in text
    (copy / "config.yaml").write_text(text.replace("batch_size: 4", "batch_size: 2"))
    with pytest.raises(InputError, match=r"train\.batch_size: 4 against 2"):
        load_run(copy)


def test_missing_and_damaged_files_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = copy / "model.safetensors"
    tensors = load_weights(weights)
    save_weights(weights, tensors, {})
    with pytest.raises(InputError, match="holds no config"):
        load_run(copy)
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be loaded"):
        load_run(copy)
    weights.unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        load_run(copy)
    (copy / "config.yaml").unlink()
    with pytest.raises(InputError, match="no such file"):
        load_run(copy)


def test_tensors_of_another_shape_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    tensors = load_weights(copy / "model.safetensors")
    header = {"config": load_run(folder).config.model_dump_json()}
    name = next(name for name in tensors if name.endswith(".rows"))
    save_weights(copy / "model.safetensors", tensors | {name: tensors[name][:1]}, header)
    with pytest.raises(InputError, match="not those of its configuration"):
        load_run(copy)
    del tensors[name]
    save_weights(copy / "model.safetensors", tensors, header)
    with pytest.raises(InputError, match="not those of its configuration"):
        load_run(copy)


def test_a_folder_of_another_configuration_is_not_trained_on(
    folder: Path, config: RunConfig, results: Path
) -> None:
    other = config.model_copy(update={"seed": 7})
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(
        InputError, match=r"the one to train is .*seed: 0 against 7.*give the folder"
    ):
        core.train.train_run(other, Runtime(results=results), folder, lambda _: None)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
