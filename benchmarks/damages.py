"""How :mod:`fuzz` damages files; prints one example for each kind."""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nnunet_lopsided.files.nifti import NIFTI_DATA

ODD: tuple[object, ...] = (
    None, True, False, -1, 0, 0.5, 1.0, 255, 10**30, 2**63, -(2**31), 1e308, "", " ", "0", "1", "²", "\ud800", "../a",
    "a/b", "nan", "\0", [], {}, [[]], [0], [0, 0, 0], [1, 1, 1], [-1, 2, 3], {"a": None}, {"0": "T1"}, float("nan"),
    float("inf"),
)  # fmt: skip
WORDS = (
    "", " ", "nan", "-inf", "1e999", "5", "-1", "0", "²", "1_0", "1.5", "9" * 20, '"', "\x00", "../p00", "a,b", "a;b",
    "\ufeff", "=1+1", "'", '"a\nb"', "ä", "kept",
)  # fmt: skip


def main() -> None:
    """What is done to a small file of each kind."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for name, content in (("a.json", b'{"a": [1, 2]}'), ("a.csv", b"case,id\na,1\n"), ("a.nii", bytes(400))):
        print(name, damage(Path(name), content, random.Random(0))[1])


def damage(path: Path, content: bytes, chance: random.Random) -> tuple[bytes, str]:
    """Another content of a file, and what was done to it in words."""
    if path.suffix == ".json":
        return _damaged_text(content, chance) if chance.random() < 0.25 else _damaged_json(content, chance)
    if path.suffix == ".csv":
        return _damaged_text(content, chance) if chance.random() < 0.25 else _damaged_table(content, chance)
    if path.name.endswith(".nii.gz") and chance.random() < 0.7:
        inner, what = _damaged_bytes(gzip.decompress(content), chance)
        return gzip.compress(inner), f"in gzip: {what}"
    return _damaged_bytes(content, chance)


def _damaged_json(content: bytes, chance: random.Random) -> tuple[bytes, str]:
    """One or two values are others, are missing, or have other names."""
    whole = json.loads(content)
    done = []
    for _ in range(chance.choice((1, 1, 1, 2))):
        places: list[tuple[Any, Any, str]] = []  # what holds a value, under which key, and where in words
        _places(whole, "", places)
        if not places:
            return json.dumps(chance.choice(ODD)).encode(), "another value as a whole"
        within, key, where = chance.choice(places)
        if isinstance(within, dict) and chance.random() < 0.25:
            moved = within.pop(key)
            new = chance.choice(WORDS) if chance.random() < 0.6 else None
            if new is not None:
                within[new] = moved
            done.append(f"{where} renamed {new!r}" if new is not None else f"{where} taken out")
        elif isinstance(within, list) and chance.random() < 0.3:
            within[key : key + 1] = [within[key]] * chance.choice((0, 2))
            done.append(f"{where} dropped or doubled")
        else:
            within[key] = chance.choice(ODD)
            done.append(f"{where} = {within[key]!r}")
    return json.dumps(whole).encode(), "; ".join(done)


def _places(value: Any, where: str, places: list[tuple[Any, Any, str]]) -> None:
    keys: Iterable[Any]
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        places.append((value, key, f"{where}.{key}"))
        _places(value[key], f"{where}.{key}", places)


def _damaged_text(content: bytes, chance: random.Random) -> tuple[bytes, str]:
    """As editors, spreadsheets and full disks leave text."""
    half = chance.randrange(len(content))
    kinds: dict[str, Callable[[], bytes]] = {
        "byte order mark": lambda: b"\xef\xbb\xbf" + content,
        "UTF-16": lambda: content.decode().encode("utf-16"),
        "trailing comma": lambda: content.replace(b"}", b",}", 1),
        "CRLF": lambda: content.replace(b"\n", b"\r\n"),
        "old Mac's CR": lambda: content.replace(b"\n", b"\r"),
        "semicolons": lambda: content.replace(b",", b";"),
        "empty": lambda: b"",
        "spaces": lambda: b" \n\n ",
        "empty lines": lambda: content.replace(b"\n", b"\n\n") + b"\n,,,,\n",
        "deep": lambda: b"[" * 100_000,
        "NaN": lambda: content.replace(b"1", b"NaN", 1),
        "infinity": lambda: content.replace(b"1", b"-Infinity", 1),
        "huge": lambda: content.replace(b"1", b"1" * 5000, 1),
        "twice": lambda: content + content,
        "Latin-1": lambda: content[:half] + b"\xe9" + content[half:],
        "cut off": lambda: content[:half],
        "comment": lambda: b"// why\n" + content,
    }
    name = chance.choice(sorted(kinds))
    return (_damaged_bytes(content, chance)) if chance.random() < 0.2 else (kinds[name](), name)


def _damaged_table(content: bytes, chance: random.Random) -> tuple[bytes, str]:
    """One cell is another, or lines are lost or doubled."""
    lines = content.decode().splitlines()
    i = chance.randrange(len(lines))
    if chance.random() < 0.7:
        cells = lines[i].split(",")
        j = chance.randrange(len(cells))
        cells[j] = chance.choice(WORDS)
        what = f"line {i + 1}, cell {j + 1} = {cells[j]!r}"
        lines[i] = ",".join(cells)
    else:
        n = chance.choice((0, 2))
        lines[i : i + 1] = lines[i : i + 1] * n
        what = f"line {i + 1} {n} times"
    return "\n".join([*lines, ""]).encode("utf-8", "surrogatepass"), what


def _damaged_bytes(content: bytes, chance: random.Random) -> tuple[bytes, str]:
    """Cut off, flipped bits, other bytes in the header, bytes taken out or added."""
    data, kind = bytearray(content), chance.randrange(5)
    if not data:
        return b"", "empty"
    place = chance.randrange(len(data))
    if kind == 0:
        del data[place:]
        return bytes(data), f"cut off at {place}"
    if kind == 1:
        for _ in range(chance.choice((1, 1, 8))):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        return bytes(data), "bits flipped"
    if kind == 2:
        place, width = chance.randrange(min(len(data), NIFTI_DATA)), chance.choice((1, 2, 4, 8))
        new = bytes(chance.choice((0, 255, 127, 128)) for _ in range(width))
        data[place : place + width] = new
        return bytes(data), f"{new!r} at {place}"
    if kind == 3:
        del data[place : place + chance.choice((1, 4, 100))]
        return bytes(data), f"bytes lost at {place}"
    return bytes(data) + bytes(chance.randrange(256) for _ in range(chance.choice((1, 8, 1000)))), "bytes at the end"


if __name__ == "__main__":
    main()
