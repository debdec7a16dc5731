"""Kinds of values that pydantic checks in a study.yaml, and what is wrong with one in a single line of our own.

A kind stands in ``Annotated`` beside the type: ``Annotated[int, Whole(1, 99)]``. It says at once what pydantic accepts,
what the JSON schema tells an editor, and what a message calls it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Annotated, TypeVar

import pydantic.dataclasses
from pydantic import ConfigDict, Strict, TypeAdapter, ValidationError, model_validator
from pydantic_core import ArgsKwargs, PydanticCustomError, core_schema

from nnunet_lopsided.errors import InputError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema, ErrorDetails

_T = TypeVar("_T")

# Strict: pydantic would else take 1 for true.
Text = Annotated[str, Strict()]
Truth = Annotated[bool, Strict()]

_OURS = "study"
# What a message calls a kind of value, by the type of pydantic's error.
_EXPECTED = {
    "string_type": "text (in quotes)",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
}
_LIST = "a list with at least one element"


def problem(expected: str, given: str | None = None, key: str = "") -> PydanticCustomError:
    """What a check of our own raises inside a model.

    Args:
        expected: what should stand there.
        given: what does; None: it is shown as it is.
        key: where, from the place that is being checked; empty: this place itself.
    """
    # Pydantic hands these on with the error; in_one_line() makes the message.
    context = {"expected": expected, "found": given or "something else", "key": key, "shown": given is None}
    return PydanticCustomError(_OURS, "expected {expected}, found {found}", context)


@dataclass(frozen=True)
class Whole:
    """A whole number within a range, the ends included; true and false are refused."""

    low: int = 0
    high: int | None = None

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = core_schema.int_schema(strict=True, ge=self.low, le=self.high)
        return _expecting(_within("a whole number", self.low, self.high), schema)


@dataclass(frozen=True)
class Number:
    """A finite number within a range, the ends included."""

    low: float
    high: float | None = None

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        # Strict, as pydantic would else read text such as "1e3" and true as numbers.
        schema = core_schema.float_schema(strict=True, ge=self.low, le=self.high, allow_inf_nan=False)
        return _expecting(_within("a number", self.low, self.high), schema)


@dataclass(frozen=True)
class Name:
    """Text of a certain form.

    Attributes:
        pattern: a regular expression for the whole text.
        form: the same in words.
    """

    pattern: str
    form: str

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _expecting(self.form, core_schema.str_schema(strict=True, pattern=f"^{self.pattern}$"))


# "__" separates the parts of nnU-Net's folder names.
NAME = Name(
    r"[A-Za-z0-9][A-Za-z0-9.]*(_[A-Za-z0-9.]+)*_?",
    "a name of letters, digits, '.' and single '_' that begins with a letter or digit",
)


@dataclass(frozen=True)
class OneOf:
    """One of some words that stand elsewhere; where they are a ``Literal`` already, that alone will do.

    Attributes:
        options: the words.
        not_text: what is expected where no text stands: 2.5 without its d is a number.
    """

    options: tuple[str, ...]
    not_text: str = "text (in quotes)"

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: object, one_of_them: Callable[[object], object]) -> object:
            if not isinstance(value, str):
                raise problem(self.not_text)
            return one_of_them(value)

        words = core_schema.literal_schema(list(self.options))
        return core_schema.no_info_wrap_validator_function(read, words)


@dataclass(frozen=True)
class OrWord:
    """Beside the values of the kind before it a word is allowed, such as ``all``.

    Attributes:
        word: what stands in the file.
        meaning: what the program works with.
    """

    word: str
    meaning: str | None

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: object, others: Callable[[object], object], info: core_schema.ValidationInfo) -> object:
            # In Python, not in a file, the meaning itself may be given. A file's null does not mean "all".
            in_python = info.context is None and value == self.meaning
            return self.meaning if value == self.word or in_python else others(value)

        def write(value: object) -> object:
            return self.word if value == self.meaning else value

        serialization = core_schema.plain_serializer_function_ser_schema(write)
        return core_schema.with_info_wrap_validator_function(read, handler(source), serialization=serialization)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), {"const": self.word}]}


@dataclass(frozen=True)
class Listed:
    """A list: of one element or more, each once; or, where the type is a tuple of some length, of that many."""

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        # By variadic_item_index pydantic marks a tuple of any length.
        length = None if schema.get("variadic_item_index") is not None else len(schema["items_schema"])

        def read(value: object, elements: Callable[[object], tuple[object, ...]]) -> tuple[object, ...]:
            if not isinstance(value, (list, tuple)) or not value:
                raise problem(_LIST)
            if length is None:
                read_elements = elements(tuple(value))
                _check_each_once(value, read_elements)
                return read_elements
            if len(value) != length:
                raise problem(f"a list of {length} numbers")
            return elements(tuple(value))

        return core_schema.no_info_wrap_validator_function(read, schema)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler(schema)
        return described if "prefixItems" in described else {**described, "minItems": 1, "uniqueItems": True}


def check_keys(value: object, keys: Sequence[str], required: Sequence[str]) -> dict[str, object]:
    """What a mapping of a file holds; a key without a value counts as not given, unless it is required.

    Raises:
        PydanticCustomError: it is no mapping, a key is unknown, or a required one is missing.
    """
    if not isinstance(value, dict):
        raise problem(f"a mapping with the keys {', '.join(keys)}")
    for key in value:
        if key not in keys:
            raise problem(f"one of the keys {', '.join(keys)}", f"{key}{did_you_mean(key, keys)}", key)
    for key in required:
        if key not in value:
            raise problem(f"the key {key}", f"only {', '.join(value) or 'an empty mapping'}")
    return {key: content for key, content in value.items() if content is not None or key in required}


@pydantic.dataclasses.dataclass(frozen=True)
class FileMapping:
    """A mapping in a study.yaml: it has these keys and no others; a key without a value counts as not given."""

    # Pydantic makes the docstring below a field the description of its key.
    __pydantic_config__ = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: object) -> object:
        if isinstance(value, (ArgsKwargs, cls)):  # made in Python
            return value
        needed = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
        return check_keys(value, [f.name for f in fields(cls)], needed)


def checked(model: TypeAdapter[_T], content: object, source: str) -> _T:
    """The content of a file as a model has it.

    Args:
        model: of the whole file.
        content: what was read from the file.
        source: name of the file, for messages.

    Raises:
        InputError: one line with file, key, expected and found: of the first thing that is wrong.
    """
    try:
        return model.validate_python(content, context={"source": source})
    except ValidationError as error:
        raise in_one_line(error, source) from None


def in_one_line(error: ValidationError, source: str, key: str = "") -> InputError:
    """The first of pydantic's errors in our own words.

    Args:
        error: of pydantic, which tells of every error, in several lines.
        source: name of the file.
        key: where in the file the model stands that was checked.
    """
    # One line for one mistake; those that follow are often its consequences.
    first = error.errors(include_url=False)[0]
    context = first.get("ctx", {})
    parts = [key, *first["loc"], str(context.get("key", "")) if first["type"] == _OURS else ""]
    where = ".".join(f"[{part}]" if isinstance(part, int) else part for part in parts if part != "")
    where = where.replace(".[", "[")
    begin = f"{source}: {where}: " if where else f"{source}: "
    if first["type"] == "value_error":  # an InputError that a check raised says it all
        return InputError(f"{begin}{context['error']}")
    expected, given = _expected_and_found(first, context)
    return InputError(f"{begin}expected {expected}, found {given}")


def _expected_and_found(error: ErrorDetails, context: Mapping[str, object]) -> tuple[str, str]:
    value = error["input"]
    if error["type"] == _OURS:
        return str(context["expected"]), shown(value) if context["shown"] else str(context["found"])
    if error["type"] == "literal_error":  # pydantic lists the options as 'a', 'b' or 'c'
        options = re.findall("'([^']*)'", str(context["expected"]))
        return f"one of {', '.join(options)}", f"{shown(value)}{did_you_mean(value, options)}"
    return _EXPECTED.get(error["type"], f"something else ({error['msg']})"), shown(value)


def did_you_mean(given: object, options: Sequence[str]) -> str:
    """A guess at what was meant, to follow what was found in a message; empty without one.

    Example:
        >>> did_you_mean("epoch", ["epochs", "iterations"]), did_you_mean("x", ["epochs"])
        ('. Did you mean epochs?', '')
    """
    close = difflib.get_close_matches(str(given), options, n=1, cutoff=0.6)
    return f". Did you mean {close[0]}?" if close else ""


def shown(value: object) -> str:
    """A value of a YAML file as a message shows it.

    Example:
        >>> shown("2d"), shown(True), shown(None), shown([0, 1]), shown({"mode": "size"})
        ("'2d'", 'true', 'nothing', 'a list of 2', 'a mapping with the keys mode')
    """
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"a mapping with the keys {', '.join(map(str, value))}" if value else "an empty mapping"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    return repr(value) if isinstance(value, str) else str(value)


def _within(what: str, low: float, high: float | None) -> str:
    return f"{what} of at least {low:g}" if high is None else f"{what} from {low:g} to {high:g}"


def _expecting(expected: str, schema: CoreSchema) -> CoreSchema:
    """Say what is expected where a value has the right type but a wrong range or form; other errors stay the same."""

    def read(value: object, inner: Callable[[object], object]) -> object:
        try:
            return inner(value)
        except ValidationError as error:
            if error.errors()[0]["type"] in _EXPECTED:
                raise
            raise problem(expected) from None

    return core_schema.no_info_wrap_validator_function(read, schema)


def _check_each_once(given: Sequence[object], elements: Sequence[object]) -> None:
    for i, element in enumerate(elements):
        if element in elements[:i]:
            raise problem("every element once", f"{shown(given[i])} twice", f"[{i}]")
