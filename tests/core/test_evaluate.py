"""Held-out losses against a loop over single windows."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from core.config import RunConfig
from core.dataset import Dataset
from core.evaluate import evaluate, sample, score_windows
from core.model import Model, predicted
from core.record import KEYS


def trained(config: RunConfig) -> Model:
    """A model whose memory does something."""
    model = Model(config, "cpu", "fp32")
    if model.bank:
        for table in model.bank.tables.values():
            generator = torch.Generator().manual_seed(0)
            table.rows.copy_(torch.randn(table.rows.shape, generator=generator))
    return model


def test_scores_equal_a_loop(make_config: Callable[..., RunConfig], dataset: Dataset) -> None:
    config = make_config(memory={"type": "ffn", "widths": [3, 2]})
    model = trained(config)
    windows = dataset.test
    second, whole = score_windows(model, windows, windows.path_prefix_nl, dataset.token_bytes_v)
    sums = {"second": [0.0, 0, 0], "whole": [0.0, 0, 0]}
    for i in range(len(windows.length_n)):
        tokens = torch.from_numpy(windows.tokens_nt[i, : windows.length_n[i]].astype(np.int64))[
            None
        ]
        path = torch.from_numpy(windows.path_prefix_nl[i].astype(np.int64))[None]
        hidden = model.hidden(tokens, torch.zeros_like(tokens), model.fetch(path))
        nll = -F.log_softmax(model.anchor.logits(hidden), -1)[0]
        for t in range(1, windows.length_n[i]):
            token = int(tokens[0, t])
            for part in ("whole", "second") if t >= windows.prefix_n[i] else ("whole",):
                sums[part][0] += nll[t - 1, token].item()
                sums[part][1] += 1
                sums[part][2] += int(dataset.token_bytes_v[token])
    for score, (nats, tokens_, bytes_) in ((second, sums["second"]), (whole, sums["whole"])):
        assert (score.tokens, score.bytes) == (tokens_, bytes_)
        assert score.nats == pytest.approx(nats, rel=1e-5)
        assert score.loss == score.nats / tokens_
        assert score.bits_per_byte == pytest.approx(score.nats / math.log(2) / bytes_)


def test_off_equals_the_bare_anchor(
    make_config: Callable[..., RunConfig], dataset: Dataset
) -> None:
    config = make_config(memory={"type": "ffn", "widths": [3, 2]})
    columns = evaluate(trained(config), dataset, config)
    bare = evaluate(Model(make_config(), "cpu", "fp32"), dataset, make_config())
    assert columns["loss_test_off"] == bare["loss_test_off"] == bare["loss_test_prefix"]
    assert len({columns[f"loss_test_{key}"] for key in (*KEYS["test"], "whole")}) == 5
    assert columns.keys() == {
        f"{kind}_{split}_{key}"
        for kind in ("loss", "bpb")
        for split, keys in KEYS.items()
        for key in (*keys, "whole")
    }


def test_sample_is_the_same_for_every_run(dataset: Dataset) -> None:
    some, all_ = sample(dataset.test, 10), sample(dataset.test, 10_000)
    assert len(some.length_n) == 10
    assert len(all_.length_n) == 30
    assert list(some.length_n) == sorted(some.length_n, reverse=True)
    assert np.array_equal(some.tokens_nt, sample(dataset.test, 10).tokens_nt)


def test_windows_do_not_disturb_each_other(
    make_config: Callable[..., RunConfig], dataset: Dataset
) -> None:
    config = make_config(memory={"type": "ffn", "widths": [3, 2]})
    model = trained(config)
    parts = [
        replace(
            dataset.test,
            **{k: getattr(dataset.test, k)[rows] for k in dataset.test.__dataclass_fields__},
        )
        for rows in (slice(0, 11), slice(11, None))
    ]
    scores = [score_windows(model, w, w.path_document_nl, dataset.token_bytes_v)[0] for w in parts]
    both = score_windows(model, dataset.test, dataset.test.path_document_nl, dataset.token_bytes_v)[
        0
    ]
    assert sum(score.nats for score in scores) == pytest.approx(both.nats, rel=1e-6)


def test_packed_rows_predict_within_documents_alone() -> None:
    segments = torch.tensor([[0, 0, 1, 1, 1, 255, 255]], dtype=torch.uint8)
    assert predicted(segments).tolist() == [[True, False, True, True, False, False]]


@pytest.mark.parametrize(
    "memory",
    [
        {"type": "pkm", "keys": 6, "heads": 2, "top_k": 3},
        {"type": "moe", "experts": 3, "top_k": 2, "placement": [1]},
    ],
)
def test_what_replaces_an_ffn_is_not_scored_without_it(
    make_config: Callable[..., RunConfig], dataset: Dataset, memory: dict[str, object]
) -> None:
    config = make_config(memory=memory)
    columns = evaluate(Model(config, "cpu", "fp32"), dataset, config)
    assert "loss_test_document" in columns
    assert not {"loss_test_off", "bpb_test_off"} & columns.keys()
