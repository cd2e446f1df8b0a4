"""Text as the model sees it: composed characters, no control characters, no runs of white space."""

import re
import unicodedata
from collections.abc import Iterable, Iterator

from core.corpus.document import Document

SHORTEST = 20  # characters; less is a heading or a stub

# Control characters but tab and newline, byte order marks, lone surrogates (they have no UTF-8).
_DROPPED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")
_BLANKS = re.compile(r"[^\S\n]+")
_AT_LINE_ENDS = re.compile(r" ?\n ?")
_EMPTY_LINES = re.compile(r"\n{3,}")


def clean_documents(documents: Iterable[Document]) -> Iterator[Document]:
    """Cleaned documents in their order; those of fewer than 20 characters are left out."""
    for title, text, source in documents:
        cleaned = clean_text(text)
        if len(cleaned) >= SHORTEST:
            yield Document(clean_text(title).replace("\n", " "), cleaned, source)


def clean_text(text: str) -> str:
    """Unicode NFC, one space between words, at most one empty line between paragraphs."""
    text = _DROPPED.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    if not text.isascii():  # ASCII is NFC already
        text = unicodedata.normalize("NFC", text)
    text = _AT_LINE_ENDS.sub("\n", _BLANKS.sub(" ", text))
    return _EMPTY_LINES.sub("\n\n", text).strip()
