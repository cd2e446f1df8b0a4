"""Where else a run is kept than in its own folder."""

from pathlib import Path

from core.record import RunRecord

CHECKPOINTS = "checkpoints"  # folder in that of a run


class Storage:
    """Keeps runs for machines that share no folder. This one keeps nothing: the folder is all."""

    def pull(self, folder: Path) -> None:
        """Bring the folder of a run to where the run got elsewhere, if that is further."""

    def push(self, folder: Path) -> None:
        """Keep what the folder holds; called after each checkpoint."""

    def finish(self, folder: Path, record: RunRecord) -> None:
        """Keep all of a finished run; called before its own folder says that it is finished."""


NOWHERE_ELSE = Storage()
