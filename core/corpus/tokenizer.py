"""Byte-level BPE: any text has tokens, and a token stands for a known number of UTF-8 bytes."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0
CACHED_WORDS = 300_000  # whose tokens the encoder keeps; with its default of 10,000 it is slower


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of at most `vocab_size` tokens (end-of-text and the 256 bytes included).

    Fewer when the text holds no more pairs that occur twice: ask `get_vocab_size()`. Deterministic.
    """
    tokenizer = Tokenizer(BPE(cache_capacity=CACHED_WORDS))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _literal(tokenizer)


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote to `path`."""
    return _literal(Tokenizer.from_file(str(path)))


def _literal(tokenizer: Tokenizer) -> Tokenizer:
    """Text that spells the end-of-text token is text, and must not become the token."""
    tokenizer.encode_special_tokens = True
    return tokenizer


def encode_batch(tokenizer: Tokenizer, texts: list[str]) -> list[NDArray[np.uint16]]:
    """Token ids of each text, without end-of-text."""
    return [np.array(found.ids, np.uint16) for found in tokenizer.encode_batch_fast(texts)]


def token_bytes(tokenizer: Tokenizer) -> NDArray[np.int32]:
    """UTF-8 bytes that each token stands for: [vocab]; 0 for end-of-text.

    In byte-level BPE a token is spelled with one character a byte.
    """
    bytes_v = np.zeros(tokenizer.get_vocab_size(), np.int32)
    for token, index in tokenizer.get_vocab().items():
        bytes_v[index] = 0 if index == END_OF_TEXT_ID else len(token)
    return bytes_v
