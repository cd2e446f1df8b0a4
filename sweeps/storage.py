"""A place that all machines of a cluster reach, for those that share no folder.

It is laid out as the results are: runs/<run id>/ with checkpoints while a run trains and, last, its
record.json; cache/trees/ with the data, so that all machines train on the same. A file is there
whole or not at all: object stores put it so, a folder gets it by a move. Of a checkpoint some files
may be missing; its checksums then tell, and the one before it is taken.
"""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from core.config import DataConfig, Runtime, TreeConfig
from core.dataset import dataset_folder
from core.errors import InputError
from core.identity import tree_fingerprint
from core.paths import PATHS
from core.record import RECORD, RunRecord, write_record
from core.storage import CHECKPOINTS, Storage
from core.writing import PARTIAL, whole_file

SUMMARY = ("config.yaml", PATHS, "curve.csv", RECORD)  # what a driver reads of a finished run
# What a run's folder holds for the machine that it lies on alone.
LOCAL = {"lock", "failure.json", "stopped.json", "delivered", "stopped-delivered"}
LAST = {RECORD, "meta.json"}  # a folder of a run, or of prepared data, is whole where one stands


class SharedStorage(Storage):
    """A folder at a URI, with credentials and endpoint from the usual AWS_ variables."""

    def __init__(self, uri: str, results: Path) -> None:
        """Raises InputError where `uri` is none, or cannot be reached or written."""
        try:
            self.uri = uri if urlsplit(uri).scheme else str(Path(uri).absolute())
            self.files, self.root = FileSystem.from_uri(self.uri)
            self.files.create_dir(self.root)
        except (OSError, ValueError) as error:
            raise InputError(
                f"storage {uri}: {' '.join(str(error).split())}; give s3://BUCKET/PREFIX with "
                "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, where it is not Amazon's, "
                "AWS_ENDPOINT_URL, or a folder that can be written"
            ) from None
        self.results = results.absolute()
        self.moves = isinstance(self.files, LocalFileSystem)

    def finished(self) -> set[str]:
        """Ids of the runs that are finished here."""
        found = self._listed(f"{self.root}/runs")
        return {name.removesuffix(f"/{RECORD}") for name in found if name.endswith(f"/{RECORD}")}

    def fetch(self, folder: Path) -> None:
        """Bring config, paths, curve and, last, the record of a run, if it is finished here."""
        stored = self._listed(self._place(folder))
        if RECORD in stored:
            for name in (name for name in SUMMARY if name in stored):
                self._get(folder / name)

    def bring(self, path: Path) -> None:
        """One file of the results, if they lack it and it is here."""
        here = self.files.get_file_info(self._place(path)).type == FileType.File
        if here and not path.exists():
            self._get(path)

    def leave(self, path: Path) -> None:
        """One file of the results, put here."""
        self._put(path, path)

    def pull(self, folder: Path) -> None:
        """As `Storage.pull`. Killed in between it leaves a folder without checkpoints."""
        stored = self._listed(self._place(folder))
        if _reached(stored) <= _reached(_local(folder)):
            return
        for part in sorted(folder.glob("*/"), key=lambda part: part.name != CHECKPOINTS):
            shutil.rmtree(part)
        for name in sorted(stored, key=_rank):
            self._get(folder / name)

    def push(self, folder: Path) -> None:
        """As `Storage.push`: what is whole or further there stays, what the folder dropped goes."""
        here, stored = _local(folder), self._listed(self._place(folder))
        if LAST & stored or _reached(stored) > _reached(here):
            return
        for name in sorted(here, key=_rank):
            if not (name in stored and name.startswith(CHECKPOINTS)):
                self._put(folder / name, folder / name)
        for name in stored - here:
            if "/" in name:  # of a checkpoint or a bank
                self.files.delete_file(self._place(folder / name))

    def finish(self, folder: Path, record: RunRecord) -> None:
        """As `Storage.finish`, the record last."""
        self.push(folder)
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch) / RECORD
            write_record(record, source)
            self._put(source, folder / RECORD)

    def _listed(self, place: str) -> set[str]:
        """Names of the files under a place, relative to it."""
        found = self.files.get_file_info(FileSelector(place, allow_not_found=True, recursive=True))
        names = {i.path.removeprefix(f"{place}/") for i in found if i.type == FileType.File}
        return _whole(names)

    def _place(self, path: Path) -> str:
        """Where a path of the results lies here."""
        return f"{self.root}/{path.relative_to(self.results).as_posix()}"

    def _get(self, path: Path) -> None:
        with whole_file(path) as partial:
            copy_files(self._place(path), str(partial), self.files, LocalFileSystem())

    def _put(self, source: Path, path: Path) -> None:
        place = self._place(path)
        if not self.moves:
            copy_files(str(source), place, LocalFileSystem(), self.files)
            return
        self.files.create_dir(place.rpartition("/")[0])
        copy_files(str(source), place + PARTIAL, LocalFileSystem(), self.files)
        self.files.move(place + PARTIAL, place)


def _rank(name: str) -> tuple[bool, bool, str]:
    """Order of files: a checkpoint must find its bank, and what says that all is there is last."""
    return name in LAST, name.startswith(CHECKPOINTS), name


def _reached(names: set[str]) -> tuple[bool, str]:
    """How far a folder got: whether it is whole, and its newest checkpoint."""
    checkpoints = {name for name in names if name.startswith(CHECKPOINTS)}
    return bool(LAST & names), max(checkpoints, default="")


def _local(folder: Path) -> set[str]:
    """Names of the files that other machines may need."""
    paths = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    return _whole(paths) - LOCAL


def _whole(names: Iterable[str]) -> set[str]:
    return {name for name in names if PARTIAL not in name}


def pull_data(data: DataConfig, tree: TreeConfig, runtime: Runtime, storage: Storage) -> Path:
    """Bring a dataset that another machine has prepared; gives its folder.

    So all machines train on one: vectors that another processor rounds may give another tree.
    """
    folder = dataset_folder(runtime.cache, tree_fingerprint(data, tree))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        storage.pull(folder)
    return folder
