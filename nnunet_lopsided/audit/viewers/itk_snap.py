"""ITK-SNAP's label descriptions: a text file that names and colours the values of a label map."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_lopsided.audit.stored import StoredCandidate
from nnunet_lopsided.audit.viewers.slicer import name_of
from nnunet_lopsided.audit.viewers.tiers import Tier
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.new_files import new_file
from nnunet_lopsided.files.regular import check_regular

_HEAD = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# Where:
#    IDX:   Zero-based index
#    -R-:   Red color component (0..255)
#    -G-:   Green color component (0..255)
#    -B-:   Blue color component (0..255)
#    -A-:   Label transparency (0.00 .. 1.00)
#    VIS:   Label visibility (0 or 1)
#    MSH:   Label mesh visibility (0 or 1)
#  LABEL:   Label description
################################################
"""
_ROW = re.compile(r'\s*(\d+)\s+\d+\s+\d+\s+\d+\s+[\d.]+\s+[01]\s+[01]\s+"(.*)"\s*')


def write_descriptions(
    path: Path, candidates: Sequence[StoredCandidate], tiers: Mapping[tuple[str, int], Tier]
) -> None:
    """Write the names and colours of candidates, in the order of their numbers."""
    rows = [_row(0, (0, 0, 0), 0, "Clear Label")]
    rows += [_row(c.number, tiers[c.key].colour, 1, name_of(c)) for c in sorted(candidates, key=lambda c: c.number)]
    with new_file(path) as unfinished:
        unfinished.write_text(_HEAD + "".join(rows), encoding="utf-8")


def _row(value: int, colour: tuple[int, int, int], shown: int, text: str) -> str:
    red, green, blue = colour
    return f'{value:5d}  {red:4d} {green:4d} {blue:4d}  {shown:7d}  {shown}  {shown}    "{text}"\n'


def read_descriptions(path: Path) -> dict[int, str]:
    """What a file of label descriptions says of each value.

    Raises:
        InputError: the file is missing or holds a line of another kind.
    """
    check_regular(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected label descriptions in UTF-8") from None
    texts = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _ROW.fullmatch(line)
        if match is None:
            raise InputError(f"{path}, line {number}: expected seven numbers and a label in quotes, found {line!r:.60}")
        texts[int(match[1])] = match[2]
    return texts
