"""What routes a window: the text that its key sees, or in a random tree its document's id."""

from collections.abc import Iterable, Iterator

from core.config import TreeConfig
from core.corpus.windows import SplitWindows


def window_keys(
    split: SplitWindows,
    tree: TreeConfig,
    prefix: float | None,
    windows: Iterable[int] | None = None,
) -> Iterator[str]:
    """Keys of `windows` (none: all) in their order; `prefix` None: the key is the whole window.

    In a random tree all windows of a document have its id as their key, whatever the prefix.
    """
    if tree.embedder == "random":
        chosen = range(len(split)) if windows is None else windows
        return (f"{split.folder.name} {split.document[window]}" for window in chosen)
    if windows is None:
        return split.key_texts(prefix)
    return (split.key_text(int(window), prefix) for window in windows)
