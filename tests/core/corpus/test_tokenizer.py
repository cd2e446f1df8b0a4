"""Bytes a token are exact for any text, and training is the same each time."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.corpus.clean import clean_text
from core.corpus.tokenizer import (
    END_OF_TEXT,
    END_OF_TEXT_ID,
    encode_batch,
    load_tokenizer,
    token_bytes,
    train_tokenizer,
)

TEXTS = [
    "The quick brown fox jumps over the lazy dog. " * 3,
    "Größe, naïve café, 東京, Ελλάδα, 🦊🦊🦊 and 🦊\n\nnew lines" * 3,
    "numbers 1,234 and 5.678 and 1,234 again, don't they?",
]
TOKENIZER = train_tokenizer(TEXTS, 320)
BYTES = token_bytes(TOKENIZER)


@given(st.text(max_size=300))
def test_bytes_of_tokens_sum_to_bytes_of_text(text: str) -> None:
    text = clean_text(text)
    (ids,) = encode_batch(TOKENIZER, [text])
    assert BYTES[ids].sum() == len(text.encode())
    assert TOKENIZER.decode(ids.tolist()) == text


def test_a_text_that_spells_end_of_text_is_text(tmp_path: Path) -> None:
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))
    for tokenizer in (TOKENIZER, load_tokenizer(tmp_path / "tokenizer.json")):
        (ids,) = encode_batch(tokenizer, [f"a{END_OF_TEXT}b"])
        assert END_OF_TEXT_ID not in ids
        assert BYTES[ids].sum() == len(END_OF_TEXT) + 2


def test_special_token_and_vocabulary() -> None:
    assert TOKENIZER.token_to_id(END_OF_TEXT) == END_OF_TEXT_ID
    assert BYTES[END_OF_TEXT_ID] == 0
    assert (BYTES[1:] > 0).all()
    assert TOKENIZER.get_vocab_size() == 320 == len(BYTES)


def test_training_twice_gives_the_same_tokenizer_and_saving_keeps_it(tmp_path: Path) -> None:
    again = train_tokenizer(iter(TEXTS), 320)
    assert again.to_str() == TOKENIZER.to_str()
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path / "tokenizer.json").get_vocab() == TOKENIZER.get_vocab()


@pytest.mark.parametrize("text", ["", "ab ab", "abc"])
def test_little_text_gives_a_smaller_vocabulary(text: str) -> None:
    tokenizer = train_tokenizer([text], 1000)
    assert 257 <= tokenizer.get_vocab_size() < 270
    assert len(token_bytes(tokenizer)) == tokenizer.get_vocab_size()
