"""Reading a YAML file by its keys: what is wrong is said in one line with file, key, expected and found."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from nnunet_lopsided.errors import InputError

T = TypeVar("T")
D = TypeVar("D")
_TYPES = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which lets a key be given twice and keeps the last; this one refuses it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: expected text as a key, found {key!r}")
            if key in seen:
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: key {key} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


class Node:
    """A value in a YAML file that knows where it stands.

    Attributes:
        source: name of the file, for messages.
        key: path of keys to here, such as ``arms[1].trainer``; empty at the top.
        value: what stands there.
    """

    def __init__(self, source: str, key: str, value: Any) -> None:
        self.source, self.key, self.value = source, key, value

    @classmethod
    def of_text(cls, text: str, source: str) -> Node:
        """The whole content of a file.

        Raises:
            InputError: it is not YAML, or has a key twice in one place.
        """
        try:
            return cls(source, "", yaml.load(text, _Loader))
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # dates that do not exist, endless nesting
            raise InputError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None

    @classmethod
    def of_file(cls, path: Path) -> Node:
        """The whole content of the file ``path``; see :meth:`of_text`."""
        try:
            return cls.of_text(path.read_text(encoding="utf-8"), str(path))
        except FileNotFoundError:
            raise InputError(f"file not found: {path}") from None
        except UnicodeDecodeError:
            raise InputError(f"{path}: expected YAML in UTF-8") from None

    def fail(self, expected: str, found: str | None = None) -> NoReturn:
        """Raise the error of this place."""
        where = f": {self.key}" if self.key else ""
        shown = found if found is not None else _shown(self.value)
        raise InputError(f"{self.source}{where}: expected {expected}, found {shown}")

    def mapping(self, keys: Sequence[str], required: Sequence[str] = ()) -> Node:
        """Check that this is a mapping with no key but ``keys`` and all of ``required``; gives itself."""
        if not isinstance(self.value, dict):
            self.fail(f"a mapping with the keys {', '.join(keys)}")
        for key in self.value:
            if key not in keys:
                self._child(key).fail(f"one of the keys {', '.join(keys)}", f"{key}{did_you_mean(key, keys)}")
        for key in required:
            if key not in self.value:
                self.fail(f"the key {key}", f"only {', '.join(self.value) or 'an empty mapping'}")
        return self

    def get(self, key: str, read: Callable[[Node], T], default: D) -> T | D:
        """The value under ``key`` as ``read`` takes it; ``default`` where there is none, or null."""
        if self.value.get(key) is None:
            return default
        return read(self._child(key))

    def need(self, key: str, read: Callable[[Node], T]) -> T:
        """The value under a key that :meth:`mapping` required, as ``read`` takes it."""
        return read(self._child(key))

    def items(self) -> Iterator[Node]:
        """The elements of a list that is not empty."""
        if not isinstance(self.value, list) or not self.value:
            self.fail("a list with at least one element")
        return (Node(self.source, f"{self.key}[{i}]", value) for i, value in enumerate(self.value))

    def list_of(self, read: Callable[[Node], T]) -> tuple[T, ...]:
        """A list that is not empty, its elements different from each other."""
        found: list[T] = []
        for item in self.items():
            value = read(item)
            if value in found:
                item.fail("every element once", f"{_shown(item.value)} twice")
            found.append(value)
        return tuple(found)

    def of_type(self, kind: type[T]) -> T:
        """This value, which must be of one type; a whole number is a number, true is none."""
        wanted: Any = (int, float) if kind is float else kind
        if not isinstance(self.value, wanted) or (isinstance(self.value, bool) and kind is not bool):
            hint = " (in quotes)" if kind is str else ""
            self.fail(_TYPES[kind] + hint)
        return kind(self.value)  # type: ignore[call-arg]

    def text(self) -> str:
        """Text."""
        return self.of_type(str)

    def truth(self) -> bool:
        """True or false."""
        return self.of_type(bool)

    def choice(self, options: Sequence[str]) -> str:
        """One of some words."""
        if self.value not in options:
            self.fail(f"one of {', '.join(options)}", f"{_shown(self.value)}{did_you_mean(self.value, options)}")
        return str(self.value)

    def whole(self, low: int = 0, high: int | None = None) -> int:
        """A whole number within a range."""
        return int(self._within(self.of_type(int), "a whole number", low, high))

    def number(self, low: float, high: float | None = None) -> float:
        """A number within a range."""
        return self._within(self.of_type(float), "a number", low, high)

    def _within(self, value: float, what: str, low: float, high: float | None) -> float:
        if not (value >= low and (high is None or value <= high)) or value == float("inf"):
            self.fail(f"{what} of at least {low:g}" if high is None else f"{what} from {low:g} to {high:g}")
        return value

    def _child(self, key: str) -> Node:
        return Node(self.source, f"{self.key}.{key}" if self.key else key, self.value.get(key))


def did_you_mean(found: Any, options: Sequence[str]) -> str:
    """A guess at what was meant, to be put behind what was found; empty without one.

    Example:
        >>> did_you_mean("epoch", ["epochs", "iterations"]), did_you_mean("x", ["epochs"])
        ('. Did you mean epochs?', '')
    """
    close = difflib.get_close_matches(str(found), options, n=1, cutoff=0.6)
    return f". Did you mean {close[0]}?" if close else ""


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return f"a mapping with the keys {', '.join(map(str, value))}" if value else "an empty mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return repr(value) if isinstance(value, str) else f"{str(value).lower() if isinstance(value, bool) else value}"
