"""The extended corpus: small copies of each layout, refusals where a program is missing."""

import gzip
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from core.corpus import extended, extended_readers
from core.corpus.packages import Pin, read_pins
from core.corpus.sources import fingerprint_sources
from core.errors import InputError


def tarball(path: Path, members: dict[str, Any]) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            data = (content if isinstance(content, str) else json.dumps(content)).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def debian(folder: Path, members: dict[str, bytes]) -> Path:
    """A Debian package, built with Debian's own program."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not on this machine")
    control = "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x.x>\nDescription: x\n"
    for name, content in {"DEBIAN/control": control.encode(), **members}.items():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_bytes(content)
    command = ["dpkg-deb", "--build", str(folder / "tree"), str(folder / "x.deb")]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "x.deb"


def test_brown_loses_its_tags(tmp_path: Path) -> None:
    tagged = "\n\tThe/at 1/2/cd jury/nn said/vbd ,/, ``/`` no/at ''/'' ./.\n"
    path = tarball(tmp_path / "b.tgz", {"ca01": tagged, "README": "Brown", "cats.txt": "x"})
    ((title, text),) = extended_readers.read_brown(path)
    assert (title, text.strip()) == ("", 'The 1/2 jury said, " no ".')


def test_addresses_and_novel(tmp_path: Path) -> None:
    address = {"year": 1790, "name": "A B", "party": "none", "text": "Citizens."}
    chapter = {"chapter": "1", "title": "Loomings.", "text": "Call me."}
    path = tarball(
        tmp_path / "s.tgz",
        {
            "data/1790_a_b_n.json": address,
            "data/1790_a_b_n.txt": "Citizens.",
            "data/chapter_1.json": chapter,
            "data/contents.json": chapter,
        },
    )
    assert list(extended_readers.read_addresses(path)) == [
        ("State of the Union 1790, A B", "Citizens.")
    ]
    assert list(extended_readers.read_novel(path)) == [("Moby Dick: Loomings.", "Call me.")]


def test_wordnet(tmp_path: Path) -> None:
    data = (
        "  1 The licence stands indented | and is no synset\n"
        '00002137 03 n 02 hot_dog 0 wide(a) 0 001 @ 00001740 n 0000 | a sausage; "eat it"  \n'
    )
    path = tarball(tmp_path / "w.tgz", {"dict/data.noun": data, "dict/index.noun": "x"})
    ((title, text),) = extended_readers.read_wordnet(path)
    assert (title, text.strip()) == ("hot dog, wide", 'a sausage; "eat it"')


def test_dictd(tmp_path: Path) -> None:
    entries = [
        b"00-database-info\nAbout this dictionary.\n",
        b"Fox \\Fox\\ (f[o^]ks), n.\n   An {animal}. [1913 Webster]\n",
        b"caf\xe9\n   A place.\n" + b" " * 100,
    ]
    starts = [0, len(entries[0]), len(entries[0]) + len(entries[1])]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    def number(value: int) -> str:
        return (number(value // 64) if value >= 64 else "") + letters[value % 64]

    words = [("00databaseinfo", 0), ("fox", 1), ("reynard", 1), ("café", 2)]
    index = "".join(
        f"{word}\t{number(starts[k])}\t{number(len(entries[k]))}\n" for word, k in words
    )
    path = debian(
        tmp_path,
        {
            "usr/share/dictd/x.dict.dz": gzip.compress(b"".join(entries)),
            "usr/share/dictd/x.index": index.encode(),
        },
    )
    found = [(title, text.strip()) for title, text in extended_readers.read_dictd(path)]
    assert found == [("Fox", "n.\n   An animal."), ("café", "A place.")]


def test_fortunes_and_essays(tmp_path: Path) -> None:
    head = "<html><head><title>A &amp; B | Site</title></head>"
    page = head + "<body><h1>A &amp; B</h1><p>One.</p></body>"
    path = debian(
        tmp_path,
        {
            "usr/share/games/fortunes/art": b"First.\n%\nSecond 100%\nof it.\n%\n",
            "usr/share/games/fortunes/art.dat": b"\x00",
            "usr/share/doc/x/html/a.html": page.encode(),
        },
    )
    fortunes = [text.strip() for _, text in extended_readers.read_fortunes(path)]
    assert fortunes == ["First.", "Second 100%\nof it.", ""]
    ((title, text),) = extended_readers.read_essays(path)
    assert (title, text.strip()) == ("A & B", "One.")


@pytest.mark.parametrize("program", ["npm", "apt-cache"])
def test_a_missing_program_is_named(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == program else name)
    monkeypatch.setattr(subprocess, "run", apt_without_packages)
    extended.debian_pin.cache_clear()
    with pytest.raises(InputError, match=f"needs {program}"):
        fingerprint_sources(("extended",))


def apt_without_packages(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(command, 100, stdout="")


def test_a_package_that_apt_does_not_know_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", apt_without_packages)
    extended.debian_pin.cache_clear()
    with pytest.raises(InputError, match="apt knows no package dict-gcide"):
        fingerprint_sources(("extended",))


def test_the_archives_version_and_checksum_identify_a_debian_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = "Package: x\nVersion: 1:2-3\nDepends: y\nSHA256: abc\n"
    done = subprocess.CompletedProcess([], 0, stdout=shown)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    extended.debian_pin.cache_clear()
    assert extended.debian_pin("anarchism") == Pin(
        "anarchism", "1:2-3", "abc", "GPL-2.0 (An Anarchist FAQ)"
    )
    assert len(fingerprint_sources(("extended",))) == 6 + 4 + 6
    extended.debian_pin.cache_clear()


def test_every_package_has_a_reader_and_a_licence() -> None:
    assert {pin.name for pin in read_pins(extended.NPM_PACKAGES)} == set(
        extended_readers.NPM_READERS
    )
    assert set(extended.DEBIAN_LICENCES) == set(extended_readers.DEBIAN_READERS)
