"""YAML as people write it, and nothing that YAML should not be used for."""

import re
from pathlib import Path
from typing import Any

import yaml

from core.errors import InputError


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 3e-3 as text; people mean a number. Duplicate keys are refused."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} is not a word", problem_mark=node.start_mark
                )
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} stands twice", problem_mark=node.start_mark
                )
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not allowed; write the value out",
                problem_mark=self.peek_event().start_mark,  # type: ignore[no-untyped-call]
            )
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {
    k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_FLOAT = r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_FLOAT), list("-+0123456789"))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises InputError for a missing file, text that is not UTF-8, bad YAML, or a file that is no
    mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the path of a YAML file") from None
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(
            f"{path}: cannot be read as UTF-8 text ({error}); save it as UTF-8"
        ) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: not valid YAML ({error}); mend the file") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {type(content).__name__}, not keys and values")
    return content
