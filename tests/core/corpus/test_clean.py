"""Cleaning against what a reader would expect of each case."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.corpus.clean import clean_documents, clean_text
from core.corpus.document import Document


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("one\u00a0 \t two", "one two"),
        ("a \r\n b\rc", "a\nb\nc"),
        ("a\n\n \n\n\nb", "a\n\nb"),
        ("\ufeffbo\x00m\x7f", "bom"),
        ("cafe\u0301", "caf\u00e9"),
        ("half \ud83d pair", "half pair"),
    ],
)
def test_clean_text(given_text: str, expected: str) -> None:
    assert clean_text(given_text) == expected


@given(st.text(st.characters(), max_size=200))
def test_cleaned_text_is_encodable_composed_and_stays_as_it_is(text: str) -> None:
    cleaned = clean_text(text)
    cleaned.encode("utf-8")
    assert cleaned == unicodedata.normalize("NFC", cleaned)
    assert clean_text(cleaned) == cleaned
    assert "  " not in cleaned and "\n\n\n" not in cleaned


def test_short_documents_go_and_titles_stay_on_one_line() -> None:
    documents = [
        Document("a\nb", "x" * 20, "s"),
        Document("", "x" * 19 + "  ", "s"),
        Document("", " \n ", "s"),
    ]
    assert list(clean_documents(documents)) == [Document("a b", "x" * 20, "s")]
