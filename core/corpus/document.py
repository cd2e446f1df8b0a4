"""What a source yields, and what every source can say about itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol


class Document(NamedTuple):
    """One text. `title` may be empty; `source` is the name of the source it came from."""

    title: str
    text: str
    source: str


class Source(Protocol):
    """One origin of text, under one licence."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def licence(self) -> str: ...

    @property
    def kind(self) -> str:
        """Where it comes from: "PyPI", "npm", "Debian", "file" or "hub"."""
        ...

    def fingerprint(self) -> list[dict[str, str]]:
        """Identifies the text without reading any of it from a network."""
        ...

    def documents(self, cache: Path) -> Iterator[Document]:
        """Every document in a fixed order; downloads into `cache` what is missing there."""
        ...
