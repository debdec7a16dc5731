"""Reading YAML: what YAML's own reader lets pass without a word is refused."""

from __future__ import annotations

from pathlib import Path

import yaml

from nnunet_lopsided.errors import InputError


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which lets a key be given twice and keeps the last; this one refuses it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise yaml.YAMLError(f"line {line}: expected text as a key, found {key!r}")
            if key in seen:
                raise yaml.YAMLError(f"line {line}: key {key} is given twice")
            seen.add(key)
        return dict(super().construct_mapping(node, deep))


def parse_yaml(text: str, source: str) -> object:
    """The content of a YAML file.

    Args:
        text: of the file.
        source: name of the file, for messages.

    Raises:
        InputError: it is not YAML, or a key is given twice in one place.

    Example:
        >>> parse_yaml("folds: [0, 1]", "study.yaml")
        {'folds': [0, 1]}
    """
    try:
        return yaml.load(text, _Loader)
    # ValueError: a date that does not exist. RecursionError: thousands of open brackets.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None


def read_text(path: Path) -> str:
    """The text of a YAML file.

    Raises:
        InputError: there is no such file, it is a pipe or a device, which might never end, or it is not in UTF-8.
    """
    if not path.exists():
        raise InputError(f"file not found: {path}")
    if not path.is_file():
        raise InputError(f"{path}: expected a file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected YAML in UTF-8") from None
