"""Reading and writing JSON."""

from __future__ import annotations

import re

import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import Shape, read_json, write_json


def test_json_round_trip_and_errors(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1]})
    assert read_json(tmp_path / "a.json") == {"a": [1]}
    with pytest.raises(InputError, match="file not found"):
        read_json(tmp_path / "b.json")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_json(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON: Expecting value"),
        (b"[" * 100_000, "not valid JSON: nested too deeply"),
        (b'{"a": 1e999}', "not valid JSON: expected finite numbers, found 1e999"),
        (b'{"a": -Infinity}', "not valid JSON: expected finite numbers, found -Infinity"),
        (b"[NaN]", "not valid JSON: expected finite numbers, found NaN"),
        (b"[" + b"1" * 5000 + b"]", "not valid JSON: expected whole numbers of at most 64 bits"),
        (b'{"a": {"b": 1, "c": 2, "b": 1}}', "not valid JSON: the key b is given twice"),
        (b'["\\ud800"]', "not valid JSON: 'utf-8' codec can't encode character"),
        (b'{"a": 1,}', "not valid JSON: "),
        (b"{'a': 1}", "not valid JSON: "),
        (b'{"a": "\xe9"}', "not valid JSON: 'utf-8' codec can't decode byte 0xe9"),
    ],
)
def test_what_is_no_json(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'a.json'}: {message}")):
        read_json(tmp_path / "a.json")


def test_a_byte_order_mark_is_skipped(tmp_path):
    (tmp_path / "a.json").write_bytes('\ufeff{"ä": [1.5]}'.encode())
    assert read_json(tmp_path / "a.json") == {"ä": [1.5]}


SHAPE: Shape = {"id": str, "rates": [float], "cases": {str: {"fold": (int, type(None))}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected a mapping, found a list"),
        ({"id": "x", "rates": []}, "expected the key cases, found id, rates"),
        ({}, "expected the key id, found none"),
        ({"id": 3}, "id: expected text, found 3"),
        ({"id": None}, "id: expected text, found null"),
        ({"id": "x", "rates": {}}, "rates: expected a list, found a mapping"),
        ({"id": "x", "rates": [1, 2.5, "3"]}, 'rates[2]: expected a number, found "3"'),
        ({"id": "x", "rates": [True]}, "rates[0]: expected a number, found true"),
        ({"id": "x", "rates": [], "cases": ["a"]}, "cases: expected a mapping, found a list"),
        ({"id": "x", "rates": [], "cases": {"a": 1}}, "cases.a: expected a mapping, found 1"),
        (
            {"id": "x", "rates": [], "cases": {"a": {"fold": 0}, "b": {"fold": 0.5}}},
            "cases.b.fold: expected a whole number or null, found 0.5",
        ),
    ],
)
def test_json_of_another_shape(tmp_path, content, message):
    write_json(tmp_path / "a.json", content)
    with pytest.raises(InputError) as error:
        read_json(tmp_path / "a.json", SHAPE)
    assert str(error.value) == f"{tmp_path / 'a.json'}: {message}"


def test_json_of_the_expected_shape_may_hold_more(tmp_path):
    content = {"id": "x", "rates": [1, 2.5], "cases": {"a": {"fold": None, "more": 1}, "b": {"fold": 2}}, "more": []}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json", SHAPE) == content
