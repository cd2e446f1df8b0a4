"""A trained model with what is needed to ask it: its codec, and the routes of texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.config import DataConfig, Runtime, TreeConfig
from core.generate import Codec, LanguageModel
from core.identity import run_id
from core.load import Router, load_routed
from core.memory_types import BLOCK_TYPES, NONE, TOKEN_TYPES


@dataclass(frozen=True)
class Subject:
    """A model to be asked, with what routes its prompts and what its facts are counted in."""

    run_id: str
    memory: str  # type
    model: LanguageModel
    codec: Codec
    router: Router
    data: DataConfig
    tree: TreeConfig

    @property
    def routed(self) -> bool:
        """Whether the tree addresses the memory, so that a text has a path."""
        return self.memory in BLOCK_TYPES

    @property
    def removable(self) -> bool:
        """Whether the model works with its memory off: not where it stands in for the FFNs."""
        token = TOKEN_TYPES.get(self.memory)
        return self.memory != NONE and not (token and token.replaces_ffn)

    def route(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Paths int32 [n, levels] with which the memory is on; where no tree addresses it, any."""
        if self.routed:
            return self.router.route(texts)
        return np.zeros((len(texts), len(self.tree.branching)), np.int32)


def open_run(folder: Path, runtime: Runtime) -> Subject:
    """A finished run, ready to be asked. Raises InputError as `load_routed` does."""
    model, router = load_routed(folder, runtime)
    config = model.config
    return Subject(
        run_id(config),
        config.memory.type,
        model,
        Codec.of_run(config, runtime.cache),
        router,
        config.data,
        config.tree,
    )
