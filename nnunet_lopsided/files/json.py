"""JSON files: read and checked, written so that none is ever seen half-written."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.new_files import locked_file, new_file
from nnunet_lopsided.files.regular import check_regular

_Change = TypeVar("_Change")

# What :func:`check_shape` compares a value with.
Shape: TypeAlias = "type | tuple[type, ...] | list[Shape] | dict[str | type[str], Shape]"


# Any, as of Python's own json: a shape is compared at run time, and tells a type checker nothing of what is returned.
def read_json(path: Path, shape: Shape | None = None, *, any_number: bool = False) -> Any:
    """Content of a JSON file, with or without a byte order mark.

    Args:
        path: the file.
        shape: what is expected, see :func:`check_shape`; None: anything.
        any_number: allow NaN and infinity, which nnU-Net writes; for files of which no number is used.

    Raises:
        InputError: the file is missing, is not JSON (NaN and numbers beyond the range of floats are none), gives a key
            twice in one place, holds half a character or has another shape.
    """
    check_regular(path)
    # Python's reader takes NaN and Infinity, and makes infinity of 1e999: none of it is JSON, and each would spread
    # through every sum without a word.
    number = float if any_number else _finite
    try:
        data = path.read_bytes()
        content = json.loads(
            data, parse_float=number, parse_int=_whole, parse_constant=number, object_pairs_hook=_each_key_once
        )
        if rb"\u" in data:  # half of a pair cannot be printed, nor name a file
            json.dumps(content, ensure_ascii=False).encode("utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except RecursionError:
        raise InputError(f"{path}: not valid JSON: nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
    if shape is not None:
        check_shape(content, shape, path)
    return content


def _each_key_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Python's own reader keeps the last of two without a word."""
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice} is given twice")
    return content


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"expected finite numbers, found {text[:20]}")
    return value


def _whole(text: str) -> int:
    """Whole numbers of 64 bits: nothing that this package reads is larger, and floats and arrays take no more."""
    # The length first: int() of thousands of digits is slow, and newer Pythons refuse them with another message.
    if len(text) > 20 or not -(2**63) <= (value := int(text)) < 2**63:
        raise ValueError(f"expected whole numbers of at most 64 bits, found {text[:20]}")
    return value


# In words of the file, not of Python: whoever reads them may have written it by hand.
_TYPE_NAMES: dict[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    type(None): "null",
    dict: "a mapping",
    list: "a list",
}


def type_name(value: object) -> str:
    """What messages call the type of a value of a JSON file.

    Example:
        >>> type_name([1]), type_name(None), type_name(2)
        ('a list', 'null', 'a whole number')
    """
    return _TYPE_NAMES[type(value)]


def check_shape(value: object, shape: Shape, path: Path, key: str = "") -> None:
    """Check what was read from a JSON file, as far as its user needs it.

    Args:
        value: what was read.
        shape: a type, or a tuple of types; ``{"a": shape, ...}`` for a mapping with these keys, and maybe others;
            ``{str: shape}`` for a mapping with any keys; ``[shape]`` for a list. A whole number is a number, true is
            none.
        path: the file, for messages.
        key: where in the file ``value`` stands, for messages.

    Raises:
        InputError: something is missing or of another type: file, key, what was expected and what was found.

    Example:
        >>> check_shape({"folds": [0, "1"]}, {"folds": [int]}, Path("a.json"))
        Traceback (most recent call last):
        ...
        nnunet_lopsided.errors.InputError: a.json: folds[1]: expected a whole number, found "1"
    """
    where = f"{path}: {key}" if key else str(path)
    if isinstance(shape, dict):
        check_shape(value, dict, path, key)
        assert isinstance(value, dict), "checked in the line above"
        for name in value if str in shape else shape:
            if name not in value:
                raise InputError(f"{where}: expected the key {name}, found {', '.join(value)[:100] or 'none'}")
            of_name = shape[str] if str in shape else shape[name]
            check_shape(value[name], of_name, path, f"{key}.{name}" if key else str(name))
    elif isinstance(shape, list):
        check_shape(value, list, path, key)
        assert isinstance(value, list), "checked in the line above"
        for i, item in enumerate(value):
            check_shape(item, shape[0], path, f"{key}[{i}]")
    else:
        kinds = shape if isinstance(shape, tuple) else (shape,)
        # The very type, not isinstance: true is an instance of int, and must not pass for a number.
        if type(value) not in kinds and not (type(value) is int and float in kinds):
            shown = type_name(value) if isinstance(value, (dict, list)) else json.dumps(value)[:100]
            raise InputError(f"{where}: expected {' or '.join(_TYPE_NAMES[kind] for kind in kinds)}, found {shown}")


def write_json(path: Path, content: object) -> None:
    """Write JSON so that ``path`` is never seen half-written, and is on the disk before an earlier file goes."""
    text = json.dumps(content, indent=2) + "\n"
    with new_file(path, durable=path.exists()) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def update_json(path: Path, change: Callable[[Any], _Change], *, any_number: bool = False) -> _Change:
    """Read a JSON file, change its content and write it, while no other process does.

    Args:
        path: an existing file.
        change: gets the content and returns what is to be written.
        any_number: see :func:`read_json`; what was read is written again.

    Returns:
        What was written.

    Raises:
        InputError: see :func:`read_json`; or another process has been changing the file for a minute.
    """
    with locked_file(path):
        content = change(read_json(path, any_number=any_number))
        write_json(path, content)
    return content


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, by which a change is noticed; read in pieces, as checkpoints are large."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 24):
            digest.update(chunk)
    return digest.hexdigest()
