"""Memories on a frozen pretrained model: a no-op at first, then the bank alone learns."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from core.config import TrainConfig
from core.corpus.tokenizer import END_OF_TEXT, train_tokenizer
from core.dataset import PADDING
from core.errors import InputError
from core.generate import generate, score_continuations
from core.posthoc.llama import Llama
from core.posthoc.model import (
    PostHocModel,
    TextRows,
    ffn_bank,
    mean_loss,
    open_codec,
    train_bank,
)
from tests.core.posthoc.test_llama import write_llama

TEXTS = ["one two three one two three one two", "three two one three two one", "one one"] * 8
PATHS = np.array([[0, 0], [1, 3], [0, 1]] * 8, np.int32)
TRAIN = TrainConfig(tokens=40 * 6 * 10, batch_size=6, lr=3e-2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_llama(tmp_path / "m", vocab_size=270)
    train_tokenizer(TEXTS, 270).save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def rows(folder: Path) -> TextRows:
    return TextRows.encode(open_codec(folder, 10), TEXTS, PATHS)


@pytest.fixture
def model(folder: Path) -> PostHocModel:
    llama = Llama.read(folder)
    return PostHocModel(llama, ffn_bank(llama, (2, 4), (4, 2), seed=0), "cpu", "fp32")


def test_rows_are_led_padded_and_cut(folder: Path) -> None:
    codec = open_codec(folder, 4)
    rows = TextRows.encode(codec, ["one", "one two three one two three one"], PATHS[:2])
    for row, text in zip(range(2), ["one", "one two three one two three one"], strict=True):
        ids = [0, *codec.encode(text)][:5]
        assert rows.tokens_nt[row, : len(ids)].tolist() == ids
        assert (rows.segments_nt[row] == 0).sum() == len(ids)
        assert (rows.segments_nt[row, len(ids) :] == PADDING).all()


def test_the_bank_starts_as_a_no_op(model: PostHocModel, rows: TextRows) -> None:
    tokens, segments, paths = rows.take(np.arange(6), "cpu")
    with_memory = model.hidden(tokens, segments, model.fetch(paths))
    assert torch.equal(with_memory, model.hidden(tokens, segments, None))


def randomise(model: PostHocModel) -> None:
    assert model.bank is not None
    generator = torch.Generator().manual_seed(1)
    for table in model.bank.resident().values():
        table.rows.copy_(torch.randn(table.rows.shape, generator=generator) / 5)


@pytest.mark.parametrize("documents", [[0], [0, 1, 2]])
@torch.no_grad()
def test_texts_grow_as_if_read_anew(
    model: PostHocModel, rows: TextRows, documents: list[int]
) -> None:
    """With the memory of one path, which is merged, and of several."""
    randomise(model)
    tokens, segments, paths = rows.take(np.array(documents), "cpu")
    fetches = model.fetch(paths)
    reader = model.reader(fetches)
    found = [reader.read(tokens[:, :end], segments[:, :end]) for end in (4, 5, 11)]
    expected = model.hidden(tokens, segments, fetches)
    assert torch.allclose(torch.cat(found, dim=1), expected, atol=1e-5)


def test_ffn_memory_is_a_wider_ffn(model: PostHocModel, rows: TextRows) -> None:
    """A document's fetched blocks, concatenated into the weights of the model itself."""
    randomise(model)
    tokens, segments, paths = rows.take(np.arange(3), "cpu")
    found = model.hidden(tokens, segments, model.fetch(paths)).detach()
    for document in range(3):
        wider = dict(model.llama.weights)
        for level, table in model.bank.tables.items():
            block = table.rows[paths[document, level]].view(3, 3, table.shape[-2], 24)
            for layer in range(3):
                for part, name in enumerate(("gate_proj", "up_proj")):
                    key = f"model.layers.{layer}.mlp.{name}.weight"
                    wider[key] = torch.cat((wider[key], block[layer, part]))
                key = f"model.layers.{layer}.mlp.down_proj.weight"
                wider[key] = torch.cat((wider[key], block[layer, 2].T), dim=1)
        alone = Llama(model.llama.config, wider)(
            tokens[[document]], segments[[document]], None, torch.float32
        )
        assert torch.allclose(found[document], alone[0], atol=1e-5)


def test_training_moves_the_fetched_rows_alone_and_lowers_the_loss(
    model: PostHocModel, rows: TextRows
) -> None:
    assert model.bank is not None
    frozen = {name: tensor.clone() for name, tensor in model.llama.weights.items()}
    before = {name: tensor.clone() for name, tensor in model.bank.state().items()}
    start, losses = mean_loss(model, rows, True), []
    train_bank(model, rows, TRAIN, 0.0, 0, lambda *log: losses.append(log[2]))
    assert len(losses) == 40
    assert mean_loss(model, rows, True) < 0.7 * start
    assert mean_loss(model, rows, False) == start
    assert all(torch.equal(frozen[name], tensor) for name, tensor in model.llama.weights.items())
    after = model.bank.state()
    assert torch.equal(after["1.rows"][2], before["1.rows"][2])  # no text went to leaf 2
    assert not torch.equal(after["1.rows"][3], before["1.rows"][3])


def test_mean_loss_equals_a_loop(model: PostHocModel, rows: TextRows) -> None:
    total, tokens = 0.0, 0
    for row, segments in zip(rows.tokens_nt, rows.segments_nt, strict=True):
        ids = torch.from_numpy(row[segments == 0])[None]
        hidden = model.hidden(ids[:, :-1], torch.zeros_like(ids[:, :-1]), None)
        nll = F.cross_entropy((hidden @ model.head_vd.T)[0], ids[0, 1:], reduction="sum")
        total, tokens = total + float(nll), tokens + ids.shape[1] - 1
    assert mean_loss(model, rows, False) == pytest.approx(total / tokens, rel=1e-5)


def test_a_trained_bank_is_heard_in_generation(
    model: PostHocModel, rows: TextRows, folder: Path
) -> None:
    codec = open_codec(folder, 10)
    train_bank(model, rows, TRAIN, 0.0, 0, lambda *_: None)
    [text] = generate(model, codec, ["one two"], PATHS[:1], 3)
    [likelihood] = score_continuations(
        model, codec, [codec.encode("one two")], [codec.encode(text)], PATHS[:1]
    )
    assert likelihood.greedy and text.startswith(" three")


def test_bad_input_is_refused(model: PostHocModel, folder: Path) -> None:
    with pytest.raises(InputError, match="3 widths for a tree of 2 levels"):
        ffn_bank(model.llama, (2, 4), (1, 1, 1), seed=0)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace(END_OF_TEXT, "<|other|>"))
    with pytest.raises(InputError, match="its tokenizer has none of"):
        open_codec(folder, 10)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        open_codec(folder, 10)
