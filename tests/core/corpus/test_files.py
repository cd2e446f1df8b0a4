"""The user's own text: what is read, what identifies it, what is refused."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.corpus.document import Document
from core.corpus.sources import describe_sources, fingerprint_sources, open_sources
from core.errors import InputError

ROWS = [{"text": "first text"}, {"text": "zweiter Text, größer", "title": "Zwei"}]


def read(path: Path) -> list[Document]:
    return [d for source in open_sources((str(path),)) for d in source.documents(path.parent)]


def lines(rows: list[dict[str, str]]) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode() + b"\n\n"


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def parquet(path: Path, table: dict[str, list[object]]) -> Path:
    pq.write_table(pa.table(table), path)
    return path


def test_text_file_is_one_document(tmp_path: Path) -> None:
    path = write(tmp_path / "a.TXT", "\ufeffeins\nzwei ö\n".encode())
    assert read(path) == [Document("", "eins\nzwei ö\n", "a.TXT")]


def test_json_lines_plain_and_compressed(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.jsonl", lines(ROWS))
    packed = write(tmp_path / "a.jsonl.gz", gzip.compress(lines(ROWS)))
    for path in (plain, packed):
        assert read(path) == [
            Document("", "first text", path.name),
            Document("Zwei", "zweiter Text, größer", path.name),
        ]


def test_parquet_with_and_without_titles(tmp_path: Path) -> None:
    titled = parquet(
        tmp_path / "a.parquet", {"title": ["A", None], "text": ["x", "y"], "n": [1, 2]}
    )
    plain = parquet(tmp_path / "b.parquet", {"text": ["x"] * 3000})
    assert [d[:2] for d in read(titled)] == [("A", "x"), ("", "y")]
    assert len(read(plain)) == 3000


def test_folder_is_one_source_whatever_its_files_are_called(tmp_path: Path) -> None:
    for folder, names in (("one", ("a", "b", "c")), ("two", ("c", "b", "a"))):
        for name, text in zip(names, ("first", "second", "third"), strict=True):
            write(tmp_path / folder / "deep" / f"{name}.txt", text.encode())
    one, two = tmp_path / "one", tmp_path / "two"
    assert [d.text for d in read(one)] == [d.text for d in read(two)]
    assert {d.source for d in read(one)} == {"one"}
    assert fingerprint_sources((str(one),)) == fingerprint_sources((str(two),))


def test_fingerprint_follows_contents_and_not_the_order_given(tmp_path: Path) -> None:
    a = write(tmp_path / "a.txt", b"some text")
    b = write(tmp_path / "b.txt", b"other text")
    both = fingerprint_sources((str(a), str(b)))
    assert fingerprint_sources((str(b), str(a), str(b))) == both
    write(a, b"some more text")
    assert fingerprint_sources((str(a), str(b))) != both


def test_description_names_licence_and_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"some text")
    (described,) = describe_sources((str(path),))
    assert described == {
        "name": "a.txt",
        "version": "-",
        "licence": "the user's own text",
        "kind": "file",
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("blank.txt", b" \n\n", "holds no text"),
        ("latin.txt", "größer".encode("latin-1"), "line 1: not UTF-8"),
        ("bad.jsonl", lines(ROWS) + b"\xff\n", "line 4: not UTF-8"),
        ("bad.jsonl", lines(ROWS) + b"{text}\n", "line 4: not JSON"),
        ("bad.jsonl", b'{"body": "x"}\n', "line 1: no text"),
        ("bad.jsonl", b'["text"]\n', "line 1: no text"),
        ("bad.jsonl.gz", b"not compressed", "cannot be read"),
        ("cut.jsonl.gz", gzip.compress(lines(ROWS * 99))[:-20], "cannot be read"),
        ("bad.parquet", b"no parquet", "not a parquet file"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(write(tmp_path / name, content))
    assert name in str(error.value) and "\n" not in str(error.value)


def test_parquet_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column text; its columns are body"):
        read(parquet(tmp_path / "a.parquet", {"body": ["x"]}))
    with pytest.raises(InputError, match="holds 7"):
        read(parquet(tmp_path / "b.parquet", {"text": [7]}))


def test_bad_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "a.pdf", b"x")
    for name, message in (
        ("none", "no such"),
        ("empty", "no text file"),
        ("a.pdf", "unknown ending"),
    ):
        with pytest.raises(InputError, match=message):
            fingerprint_sources((str(tmp_path / name),))


def test_too_many_sources_are_refused(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.txt", f"text {i}".encode()) for i in range(256)]
    with pytest.raises(InputError, match="256 sources, allowed are 255"):
        open_sources(tuple(map(str, paths)))
    assert len(open_sources((str(tmp_path),))) == 1


def test_hub_names(tmp_path: Path) -> None:
    assert fingerprint_sources(("hf:owner/name@abc:test",)) == [
        {"dataset": "owner/name", "revision": "abc", "split": "test"}
    ]
    assert fingerprint_sources(("hf:owner/name",)) != fingerprint_sources(("hf:owner/name:test",))
    parquet(tmp_path / "a.parquet", {"text": ["x"]})
    local, split = fingerprint_sources((f"hf:{tmp_path}:train",))
    assert (local["ending"], split) == (".parquet", {"split": "train"})
    with pytest.raises(InputError, match="names no data set"):
        open_sources(("hf:",))


def test_hub_reads_local_parquet_or_says_what_is_missing(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", {"text": ["some text"], "title": ["A"]})
    (source,) = open_sources((f"hf:{tmp_path}",))
    try:
        import datasets  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match="needs the library datasets"):
            list(source.documents(tmp_path))
    else:
        assert [d[:2] for d in source.documents(tmp_path)] == [("A", "some text")]
