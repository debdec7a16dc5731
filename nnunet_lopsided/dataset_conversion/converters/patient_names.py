"""Which patient a case is of: by a regular expression, by a table, or asked for where names look like sessions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.tables import read_table

# What stands for a visit in a case's name: a word with a number, a word alone, or a date.
_WORDS = "session|ses|timepoint|time|tp|t|visit|vis|v|scan|exam|study|followup|follow-up|fu|month|mo|m|week|year|day"
_SESSION = re.compile(
    rf"(?<=[A-Za-z0-9])[-_. ]((?:{_WORDS})[-_. ]?[0-9]+|baseline|bl|follow-?up|fu|pre-?op|post-?op|pre|post"
    r"|(?:19|20)[0-9]{2}-?[01][0-9]-?[0-3][0-9])(?=[-_. ]|$)",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"(?P<rest>.*[0-9].*)[-_. ][0-9]{1,3}|(?P<digits>[0-9]{3,})[A-Za-z]")
_SHOWN = 3


def patient_of(name: str, regex: str) -> tuple[str, str]:
    """Patient and time point of a case by a regular expression: its first and its second group.

    Raises:
        InputError: it finds no patient in the name.

    Example:
        >>> patient_of("sub-01_ses-2", r"(sub-[0-9]+)_(ses-[0-9]+)")
        ('sub-01', 'ses-2')
    """
    match = re.search(regex, name)
    if match is None or not match.groups() or not match[1]:
        raise InputError(f"--patients-regex {regex!r} finds no patient (first group) in the case name {name!r}")
    return match[1], (match[2] or "") if len(match.groups()) > 1 else ""


def check_regex(regex: str) -> None:
    """Refuse what is no regular expression, or has no group for the patient.

    Raises:
        InputError: so.
    """
    try:
        compiled = re.compile(regex)
    except re.error as error:
        raise InputError(f"--patients-regex {regex!r} is not a regular expression: {error}") from None
    if not compiled.groups:
        raise InputError(f"--patients-regex {regex!r} finds no patient: put its part of the case name in (brackets)")


def patients_table(path: Path) -> dict[str, tuple[str, str]]:
    """Patient and time point by case, of a CSV file with the columns ``case`` and ``patient``, perhaps ``time_point``.

    Raises:
        InputError: the file is missing, lacks a column, or has a case twice or without patient.
    """
    found: dict[str, tuple[str, str]] = {}
    for row in read_table(path, ("case", "patient")):
        if row["case"] in found:
            raise InputError(f"{path}: case {row['case']} has two rows")
        if not row["patient"]:
            raise InputError(f"{path}: case {row['case']} has no patient")
        found[row["case"]] = row["patient"], row.get("time_point", "")
    return found


def sessions(names: Iterable[str]) -> dict[str, list[str]]:
    """Cases whose names are the same but for what looks like a visit, by what is the same; only where there are two.

    Example:
        >>> sessions(["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1", "p7_T1", "p7_T2", "p8"])
        {'p7': ['p7_T1', 'p7_T2'], 'sub-01': ['sub-01_ses-1', 'sub-01_ses-2']}
    """
    groups: dict[str, list[str]] = {}
    everything = sorted(names)
    for name in everything:
        groups.setdefault(_SESSION.sub("", name), []).append(name)
    several = {rest: group for rest, group in groups.items() if len(group) > 1}
    # "case_v1" to "case_v20": a numbering of cases, not twenty visits of somebody called "case".
    lone = len(groups) == 1 and len(everything) > _SHOWN and not re.search("[0-9]", next(iter(groups)))
    return {} if lone else several


def session_question(names: Sequence[str]) -> str | None:
    """What the user must say where several cases look like sessions of one patient; None: none do."""
    found = sessions(names)
    if not found:
        return None
    shown = "; ".join(f"{', '.join(group)} of {rest}" for rest, group in list(found.items())[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more patients" if len(found) > _SHOWN else ""
    proposed = _proposed(found)
    return (
        f"{sum(map(len, found.values()))} cases look like several sessions of {len(found)} patient(s) ({shown}{more}), "
        f"who would be on both sides of a split: say whose they are by {proposed}--patients FILE.csv (columns case and "
        "patient), or --patients-regex '(.+)' if every case is a patient of its own"
    )


def _proposed(found: dict[str, list[str]]) -> str:
    """The pattern to propose: visits written as in these names, at their end. Empty where that does not tell them."""
    visits = {match[1] for group in found.values() for name in group if (match := _SESSION.search(name))}
    shapes = sorted({re.sub("[0-9]+", "[0-9]+", visit.replace(".", r"\.")) for visit in visits})
    regex = f"(.+?)(?:[-_. ]({'|'.join(shapes)}))?$"
    fits = all(patient_of(name, regex)[0] == rest for rest, group in found.items() for name in group)
    return f"--patients-regex '{regex}', " if fits else ""


def numbered_visits(names: Iterable[str]) -> str | None:
    """A note where names end as those of visits often do (``00001-000``, ``100101A``), which may mean nothing."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        match = _NUMBERED.fullmatch(name)
        groups.setdefault((match["rest"] or match["digits"]) if match else name, []).append(name)
    several = {rest: group for rest, group in groups.items() if len(group) > 1}
    if not several or len(groups) < 2 or max(map(len, several.values())) > _SHOWN:
        return None
    first = next(iter(several.values()))
    return (
        f"{sum(map(len, several.values()))} cases may be several visits of {len(several)} patient(s), such as "
        f"{' and '.join(first)}: they are taken for different patients unless --patients-regex or --patients says so"
    )
