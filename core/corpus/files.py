"""The user's own text: .txt, .jsonl(.gz), .parquet files, folders of them, data sets of a hub."""

import gzip
import importlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.corpus.document import Document
from core.corpus.packages import file_sha256
from core.errors import InputError

_ENDINGS = (".txt", ".jsonl", ".jsonl.gz", ".parquet")
_ALLOWED = "allowed are .txt, .jsonl, .jsonl.gz and .parquet"
_BATCH = 1024  # rows of a parquet file held at once


@dataclass(frozen=True)
class FileSource:
    """A file, or all files of a folder in the order of their contents' hashes."""

    name: str
    paths: tuple[Path, ...]
    version: str = "-"
    licence: str = "the user's own text"
    kind: str = "file"

    def fingerprint(self) -> list[dict[str, str]]:
        return [{"ending": _ending(path), "sha256": file_sha256(path)} for path in self._ordered()]

    def documents(self, cache: Path) -> Iterator[Document]:
        for path in self._ordered():
            for title, text in _READ[_ending(path)](path):
                yield Document(title, text, self.name)

    def _ordered(self) -> list[Path]:
        return sorted(self.paths, key=file_sha256)


def file_source(given: str) -> FileSource:
    """The source behind a path.

    Raises InputError for a missing path, a folder without text files, an unknown ending.
    """
    path = Path(given)
    if path.is_dir():
        files = tuple(p for p in sorted(path.rglob("*")) if p.is_file() and _ending(p))
        if not files:
            raise InputError(f"{given}: folder holds no text file; {_ALLOWED}")
        return FileSource(path.resolve().name, files)
    if not path.is_file():
        raise InputError(
            f"{given}: no such file or folder; data.corpus takes names, hf:NAME and paths"
        )
    if not _ending(path):
        raise InputError(f"{given}: unknown ending; {_ALLOWED}")
    return FileSource(path.name, (path,))


@dataclass(frozen=True)
class HubSource:
    """A Hugging Face data set with a column `text` (and maybe `title`), read as a stream.

    Its fingerprint is its name, revision and split: pin a revision (a commit) so that runs stay
    comparable.
    """

    dataset: str
    version: str
    split: str
    licence: str = "see the data set's card"
    kind: str = "hub"

    @property
    def name(self) -> str:
        return f"hf:{self.dataset}"

    def fingerprint(self) -> list[dict[str, str]]:
        if Path(self.dataset).is_dir():
            return [*file_source(self.dataset).fingerprint(), {"split": self.split}]
        return [{"dataset": self.dataset, "revision": self.version, "split": self.split}]

    def documents(self, cache: Path) -> Iterator[Document]:
        for row in self._rows():
            if not isinstance(row.get("text"), str):
                raise InputError(
                    f"{self.name}: a row has no text; the columns are {', '.join(row)}"
                )
            yield Document(row.get("title") or "", row["text"], self.name)

    def _rows(self) -> Iterable[dict[str, Any]]:
        try:
            library = importlib.import_module("datasets")
        except ImportError:
            raise InputError(
                f"{self.name}: needs the library datasets; pip install datasets, "
                "or give the data set's .parquet files as paths"
            ) from None
        try:
            revision = None if self.version == "main" else self.version
            stream: Iterable[dict[str, Any]] = library.load_dataset(
                self.dataset, split=self.split, revision=revision, streaming=True
            )
        except Exception as error:  # the library raises many kinds: no such name, split or network
            raise InputError(
                f"{self.name}: split {self.split} cannot be opened ({error}); "
                "check name, split and network"
            ) from None
        return stream


def hub_source(given: str) -> HubSource:
    """The source behind `hf:NAME[@REVISION][:SPLIT]`; main and train where they are not given."""
    dataset, _, split = given.removeprefix("hf:").partition(":")
    dataset, _, revision = dataset.partition("@")
    if not dataset:
        raise InputError(
            f"{given}: names no data set; write hf:NAME, hf:NAME:SPLIT or hf:NAME@REVISION:SPLIT"
        )
    return HubSource(dataset, revision or "main", split or "train")


def _ending(path: Path) -> str:
    """The known ending of a file name, or nothing."""
    return next((ending for ending in _ENDINGS if path.name.lower().endswith(ending)), "")


def _read_txt(path: Path) -> Iterator[tuple[str, str]]:
    with path.open("rb") as file:
        text = "".join(_lines(path, file))
    if not text.strip():
        raise InputError(f"{path}: holds no text; remove it or write text into it")
    yield "", text


def _read_jsonl(path: Path) -> Iterator[tuple[str, str]]:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as file:
        for number, line in enumerate(_lines(path, file), 1):
            if line.strip():
                yield _row(path, number, line)


def _lines(path: Path, file: Iterable[bytes]) -> Iterator[str]:
    try:
        for number, line in enumerate(file, 1):
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {number}: not UTF-8 ({error.reason}); save it as UTF-8"
        ) from None
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}); mend or replace the file") from None


def _row(path: Path, number: int, line: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {number}: not JSON ({error}); write one object a line"
        ) from None
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise InputError(f'{path}, line {number}: no text; write {{"text": "...", "title": "..."}}')
    return _title(row.get("title")), row["text"]


def _title(value: object) -> str:
    return "" if value is None else str(value)


def _read_parquet(path: Path) -> Iterator[tuple[str, str]]:
    pyarrow, parquet = (
        importlib.import_module("pyarrow"),
        importlib.import_module("pyarrow.parquet"),
    )
    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a parquet file ({error}); replace it") from None
    names = file.schema_arrow.names
    if "text" not in names:
        raise InputError(f"{path}: no column text; its columns are {', '.join(names)}")
    columns = ["text", "title"] if "title" in names else ["text"]
    for batch in file.iter_batches(_BATCH, columns=columns):
        for row in batch.to_pylist():
            if not isinstance(row["text"], str):
                raise InputError(
                    f"{path}: column text holds {row['text']!r}; give text in every row"
                )
            yield _title(row.get("title")), row["text"]


_READ = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".parquet": _read_parquet,
}
