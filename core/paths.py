"""The paths of a run, kept in its folder, and those of a sweep, kept beside its table."""

from collections.abc import Callable
from pathlib import Path

import yaml

from core.config import Paths, parse_section
from core.reading import read_yaml
from core.record import RECORD, RunRecord, read_record
from core.writing import write_text

PATHS = "paths.yaml"


def kept_paths(folder: Path, otherwise: Callable[[], Paths]) -> Paths:
    """Those kept in a folder; where there are none, what `otherwise` gives, kept from now on.

    So what is resumed or added later rounds as what was there. Raises InputError for a file that
    holds no paths.
    """
    file = folder / PATHS
    if not file.exists():
        write_text(file, yaml.safe_dump(otherwise().model_dump()))
    return parse_section(Paths, read_yaml(file), str(file))


def taken_paths(folder: Path, record: RunRecord | None = None) -> Paths:
    """Those that the run of a folder took, or of the `record` of one that has no folder here.

    Older runs kept their precision alone, in the record, and their attention was plain. Raises
    InputError as `kept_paths` does.
    """
    file = folder / PATHS
    if file.exists():
        return parse_section(Paths, read_yaml(file), str(file))
    if record is None and (folder / RECORD).exists():
        record = read_record(folder / RECORD)
    values = {"precision": record.precision} if record and record.precision else {}
    return parse_section(Paths, values, str(folder))
