"""Files of a folder laid out as BIDS says: subjects, sessions and modalities told by their names.

The layout: https://bids-specification.readthedocs.io, "Filenames": ``sub-01_ses-2_acq-3d_T1w.nii.gz`` holds entities
(``sub``, ``ses``, ``acq``) and a suffix (``T1w``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_lopsided.dataset_conversion.converters.bringing import LABEL
from nnunet_lopsided.dataset_conversion.converters.release import Gatherer
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.paths import IMAGE_ENDINGS

_SHOWN = 8


@dataclass(frozen=True)
class BidsName:
    """What a file's name says.

    Attributes:
        entities: values by key.
        suffix: what kind of image it is.
    """

    entities: Mapping[str, str]
    suffix: str

    def has(self, wanted: BidsName) -> bool:
        """Whether it is of a kind: the same suffix, and at least these entities."""
        return self.suffix == wanted.suffix and wanted.entities.items() <= self.entities.items()

    @property
    def kind(self) -> str:
        """Entities and suffix without subject and session, as a pattern."""
        parts = [f"{key}-{value}" for key, value in self.entities.items() if key not in ("sub", "ses")]
        return "_".join([*parts, self.suffix])


def bids_name(stem: str) -> BidsName | None:
    """Take a name apart; None: it is no name of BIDS.

    Args:
        stem: the file name without its ending.

    Example:
        >>> bids_name("sub-01_ce-gd_T1w")
        BidsName(entities={'sub': '01', 'ce': 'gd'}, suffix='T1w')
    """
    *parts, suffix = stem.split("_")
    pairs = [re.fullmatch(r"([A-Za-z0-9]+)-(.+)", part) for part in parts]
    if not re.fullmatch(r"[A-Za-z0-9]+", suffix) or not all(pairs):
        return None
    return BidsName({pair[1]: pair[2] for pair in pairs if pair}, suffix)


@dataclass(frozen=True)
class _File:
    path: Path
    name: BidsName
    derived: bool


def gather(
    gathered: Gatherer, files: Sequence[Path], channels: Mapping[str, str], label: str
) -> tuple[str, dict[str, tuple[str, str]]]:
    """Add the files of every subject and session.

    A pattern is a suffix, perhaps after entities that the file must have: ``T1w``, ``ce-gd_T1w``,
    ``label-lesion_mask``. A file that fits several channels is that of the one with the most entities. Channels are
    looked for outside of ``derivatives`` and, where no file is such there, in it; labels the other way round.

    Args:
        gathered: the cases are added to it.
        files: those to look at.
        channels: patterns by channel.
        label: pattern of the label maps.

    Returns:
        The kinds of images there are, for messages, and patient and time point by case.

    Raises:
        InputError: a pattern is none.
    """
    wanted = {channel: _pattern(f"--channels {channel}=", pattern) for channel, pattern in channels.items()}
    found = _images(gathered, files)
    cases: dict[str, tuple[str, str]] = {}
    for role, pattern in {**wanted, LABEL: _pattern("--labels ", label)}.items():
        fitting = [file for file in found if file.name.has(pattern) and not _better_fit(file, pattern, wanted)]
        first = [file for file in fitting if file.derived == (role == LABEL)] or fitting
        for file in first:
            subject, session = file.name.entities["sub"], file.name.entities.get("ses")
            case = f"sub-{subject}" + ("" if session is None else f"_ses-{session}")
            cases[case] = (f"sub-{subject}", "" if session is None else f"ses-{session}")
            gathered.add(case, role, file.path)
    kinds = Counter(f"{file.name.kind}{' in derivatives' if file.derived else ''}" for file in found)
    listed = ", ".join(f"{kind} ({n})" for kind, n in sorted(kinds.items())[:_SHOWN])
    return f" (found: {listed or 'no file sub-LABEL_..._SUFFIX'}{', ...' if len(kinds) > _SHOWN else ''})", cases


def _pattern(option: str, text: str) -> BidsName:
    pattern = bids_name(text)
    if pattern is None or {"sub", "ses"} & pattern.entities.keys():
        raise InputError(f"{option}{text}: with --bids expected a suffix such as T1w, or entities and one: ce-gd_T1w")
    return pattern


def _better_fit(file: _File, pattern: BidsName, wanted: Mapping[str, BidsName]) -> bool:
    """Whether a file belongs to another channel that asks for more."""
    return any(file.name.has(other) and len(other.entities) > len(pattern.entities) for other in wanted.values())


def _images(gathered: Gatherer, files: Sequence[Path]) -> list[_File]:
    """The images whose names are of BIDS; the others are counted in a note."""
    found, others = [], 0
    for path in files:
        ending = next((e for e in IMAGE_ENDINGS if path.name.lower().endswith(e)), None)
        if ending is None:
            continue
        name = bids_name(path.name[: -len(ending)])
        if name is None or "sub" not in name.entities:
            others += 1
            continue
        found.append(_File(path, name, "derivatives" in path.relative_to(gathered.source).parts))
    if others:
        gathered.notes.append(f"{others} image files have no name of BIDS (sub-LABEL_..._SUFFIX) and are not looked at")
    return found
