"""Generation and likelihoods against one text, one token at a time."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from core.config import RunConfig
from core.corpus.tokenizer import train_tokenizer
from core.generate import Codec, Likelihood, generate, score_continuations
from core.model import Model
from tests.core.test_evaluate import trained

PROMPTS = ["one two", "three", "two two two three one", "", "one one three two one two three one"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["one two three two one three"] * 3, 270)


@pytest.fixture
def model(make_config: Callable[..., RunConfig]) -> Model:
    return trained(make_config(memory={"type": "ffn", "widths": [3, 2]}))


PATHS = np.array([[0, 0], [0, 1], [1, 2], [1, 3], [0, 1]], np.int32)


@torch.no_grad()
def slow_logits(model: Model, ids: list[int], path: np.ndarray | None) -> torch.Tensor:
    fetches = None if path is None else model.fetch(torch.from_numpy(path.astype(np.int64))[None])
    tokens = torch.tensor(ids)[None]
    return model.anchor.logits(model.hidden(tokens, torch.zeros_like(tokens), fetches))[0]


@pytest.mark.parametrize("routed", [True, False])
@pytest.mark.parametrize("context", [3, 16])
def test_greedy_equals_a_loop(
    model: Model, tokenizer: Tokenizer, routed: bool, context: int
) -> None:
    codec = Codec(tokenizer, (0,), 0, context)
    paths = PATHS if routed else None
    found = generate(model, codec, PROMPTS, paths, 6)
    for index, prompt in enumerate(PROMPTS):
        ids, new = [0, *codec.encode(prompt)], []
        while len(new) < 6:
            path = None if paths is None else paths[index]
            token = int(slow_logits(model, (ids + new)[-context:], path)[-1].argmax())
            if token == 0:
                break
            new.append(token)
        assert found[index] == codec.decode(new)


def test_generation_ends_with_the_document(model: Model, tokenizer: Tokenizer) -> None:
    codec = Codec(tokenizer, (0,), 0, 16)
    prompt = "one two"
    first = int(slow_logits(model, [0, *codec.encode(prompt)], None)[-1].argmax())
    assert generate(model, codec, [prompt], None, 4) != [""]
    ends_at_once = Codec(tokenizer, (0,), first, 16)
    assert generate(model, ends_at_once, [prompt], None, 4) == [""]


@pytest.mark.parametrize("routed", [True, False])
@pytest.mark.parametrize("context", [4, 16])
def test_likelihoods_equal_a_loop(
    model: Model, tokenizer: Tokenizer, routed: bool, context: int
) -> None:
    codec = Codec(tokenizer, (0,), 0, context)
    paths = PATHS if routed else None
    continuations = [codec.encode(text) for text in ("three", " two one", "one", "two", " one")]
    prompts = [codec.encode(prompt) for prompt in PROMPTS]
    found = score_continuations(model, codec, prompts, continuations, paths)
    for index, (prompt, continuation) in enumerate(zip(prompts, continuations, strict=True)):
        ids = [0, *prompt, *continuation][-context - 1 :]
        logits = slow_logits(model, ids[:-1], None if paths is None else paths[index])
        logprobs, total, greedy = torch.log_softmax(logits, -1), 0.0, True
        for place in range(len(ids) - len(continuation), len(ids)):
            total += float(logprobs[place - 1, ids[place]])
            greedy &= int(logits[place - 1].argmax()) == ids[place]
        assert found[index].logprob == pytest.approx(total, rel=1e-4)
        assert found[index].greedy == greedy


def test_nothing_is_certain(model: Model, tokenizer: Tokenizer) -> None:
    codec = Codec(tokenizer, (0,), 0, 16)
    assert score_continuations(model, codec, [[5, 6]], [[]], None) == [Likelihood(0.0, True)]


def test_greedy_text_is_scored_as_greedy(model: Model, tokenizer: Tokenizer) -> None:
    codec = Codec(tokenizer, (0,), 0, 16)
    prompt = codec.encode("one two")
    token = int(slow_logits(model, [0, *prompt], PATHS[0])[-1].argmax())
    [right, wrong] = score_continuations(
        model, codec, [prompt] * 2, [[token], [(token + 1) % 270]], PATHS[[0, 0]]
    )
    assert right.greedy and not wrong.greedy and right.logprob > wrong.logprob
