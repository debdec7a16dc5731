"""What the content of a JSON file must be, as pydantic models; what is wrong with one in a single line.

For files of nnU-Net's or a user's, whose values have ranges and depend on each other. The small files that this package
writes for itself are compared with a plain shape, see :func:`~nnunet_lopsided.files.json.check_shape`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar, cast

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import type_name

_T = TypeVar("_T")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveWhole = Annotated[int, Field(ge=1)]
# What a message calls what is expected, by the type of pydantic's error.
_EXPECTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "dict_type": "a mapping",
    "list_type": "a list",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than_equal": "a number of at most {le:g}",
    "too_short": "at least {min_length} elements",
    "too_long": "at most {max_length} elements",
    "string_unicode": "text in Unicode",
}


def validated(
    model: TypeAdapter[_T], content: object, source: Path | str, key: str = "", *, may_lack: bool = False
) -> _T:
    """What was read from a JSON file, as a model has it; true is no number, and no text is.

    Args:
        model: what it must be; mappings of a file may have further keys, which are left out here.
        content: what was read.
        source: the file, for messages.
        key: where in it ``content`` stands, for messages.
        may_lack: keys may be missing, as in files of older versions; what is there is checked.

    Raises:
        InputError: file, key, what was expected and what was found, of the first thing that is wrong.

    Example:
        >>> validated(TypeAdapter(dict[str, list[Positive]]), {"spacing": [1, 0.5]}, "a.json")
        {'spacing': [1.0, 0.5]}
        >>> validated(TypeAdapter(dict[str, list[Positive]]), {"spacing": [1, -1]}, "a.json")
        Traceback (most recent call last):
        ...
        nnunet_lopsided.errors.InputError: a.json: spacing[1]: expected a number above 0, found -1
    """
    try:
        return model.validate_python(content, strict=True)
    except ValidationError as error:
        # A file is mended from the top; later problems may be of the same cause.
        wrong = [e for e in error.errors(include_url=False) if not (may_lack and e["type"] == "missing")]
        if wrong:
            raise _in_one_line(wrong[0], source, key) from None
    return cast("_T", content)


def _in_one_line(error: ErrorDetails, source: Path | str, key: str) -> InputError:
    place = list(error["loc"])
    if error["type"] == "missing":
        name = place.pop()
        expected, found = f"the key {name}", ", ".join(map(str, error["input"]))[:100] or "none"
    elif error["type"] == "value_error":  # an InputError that a check of ours raised
        expected, found = str(error["ctx"]["error"]), ""
    else:
        context: Mapping[str, object] = error.get("ctx", {})
        expected = _EXPECTED.get(error["type"], error["msg"]).format(**context)
        found = _shown(error["input"])
    where = key
    for part in place:
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
    begin = f"{source}: {where}: " if where else f"{source}: "
    return InputError(f"{begin}expected {expected}, found {found}" if found else f"{begin}{expected}")


def _shown(value: object) -> str:
    return type_name(value) if isinstance(value, (dict, list)) and not _is_short(value) else json.dumps(value)[:100]


def _is_short(value: object) -> bool:
    """Whether a list is shown as it stands."""
    return isinstance(value, list) and 0 < len(value) < 5 and all(isinstance(item, (int, float)) for item in value)
