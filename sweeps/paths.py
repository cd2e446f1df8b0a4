"""What is fastest where the trials run: measured once a sweep, kept with it, the same for all."""

from collections.abc import Callable
from pathlib import Path

from core.config import Paths, RunConfig, parse_section
from core.reading import read_yaml
from core.writing import write_text


def kept_paths(file: Path, measure: Callable[[], Paths]) -> Paths:
    """Those in `file`, which is written if it is not there.

    So runs that are resumed or added later round as the others did. Raises InputError for a file
    that holds no paths.
    """
    if not file.exists():
        write_text(file, measure().model_dump_json())
    return parse_section(Paths, read_yaml(file), str(file))


def measure(config: RunConfig, device: str) -> Paths:
    """In a worker: the driver may stand on another kind of machine."""
    from core.calibrate import measure_paths  # torch: seconds

    return measure_paths(config, device)
