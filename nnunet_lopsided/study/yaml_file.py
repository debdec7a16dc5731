"""Reading YAML: what YAML's own reader lets pass without a word is refused."""

from __future__ import annotations

import re

import yaml

from nnunet_lopsided.errors import InputError

_MERGE = "tag:yaml.org,2002:merge"  # the key <<, behind which a mapping of another place follows


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which lets a key be given twice and keeps the last; this one refuses it.

    Keys are looked at where they are written: later, what ``<<`` brings stands among them.
    """

    def compose_mapping_node(self, anchor: object) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)  # type: ignore[arg-type] # whose stub names another type
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = "<<" if key_node.tag == _MERGE else self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            # Unquoted, on and 1.0 are no text to YAML 1.1, and no key of ours.
            if not isinstance(key, str):
                raise yaml.YAMLError(f"line {line}: expected text as a key, found {key!r}")
            if key in seen:
                raise yaml.YAMLError(f"line {line}: key {key} is given twice")
            seen.add(key)
        return node

    def construct_plain_number(self, node: yaml.ScalarNode) -> int | float:
        """A number as it looks: YAML takes 010 for 8, 0x10 for 16, 1:30 for 90 and 8_02 for 802."""
        value = self.construct_yaml_float(node) if node.tag.endswith("float") else self.construct_yaml_int(node)
        if re.fullmatch(r"-?(0|[1-9][0-9]*)|-?[0-9]*\.[0-9]*([eE][-+]?[0-9]+)?|-?\.(inf|nan)", node.value.lower()):
            return value
        raise yaml.YAMLError(
            f"line {node.start_mark.line + 1}: YAML reads {node.value} as {value:g}; write that, or the text in quotes"
        )


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_plain_number)


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
        >>> parse_yaml("a: &a {epochs: 5}\\nb: {<<: *a, iterations: 9}", "study.yaml")
        {'a': {'epochs': 5}, 'b': {'epochs': 5, 'iterations': 9}}
    """
    try:
        return yaml.load(text, _Loader)
    # ValueError: a date that does not exist. RecursionError: thousands of open brackets.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
