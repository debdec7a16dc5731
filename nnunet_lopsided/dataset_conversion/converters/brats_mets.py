"""BraTS-METS 2023, 2024 and 2025, and Yale's Pretreat-MetsToBrain-Masks: ``BraTS-MET-NNNNN-NNN-{t1n,...,seg}.nii.gz``.

The last field of a case's name is the time point, the one before it the patient. Folders do not matter: the training
and additional data of 2023, the flat files of 2024 and the nested ``UCSD - Training`` of 2025 are all gathered. A file
below a folder named after corrections (``fixed-cases``, ``corrected-labels``) replaces the one of the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from nnunet_lopsided.dataset_conversion.converters.release import (
    Gatherer,
    Release,
    brats_labels,
    files_below,
    selected_channels,
    visits,
)

CHANNELS = ("t1n", "t1c", "t2w", "t2f")
# Values outside the table of labels that the organisers have not corrected; read as background.
LABEL_FIXES = {"BraTS-MET-01094-002": {6: 0}}
_FILE = re.compile(r"((BraTS-MET-\d+)-(\d+))-(t1n|t1c|t2w|t2f|seg)\.nii(\.gz)?", re.IGNORECASE)


def find(source: Path, channels: Iterable[str] | None = None, target: str = "TC") -> Release:
    """The cases below ``source``.

    Args:
        source: any folder above the files.
        channels: those wanted, of t1n, t1c, t2w, t2f; default: all.
        target: ``ET``, ``TC`` (default) or ``WT``.

    Raises:
        InputError: the folder does not exist, or an argument is not allowed.
    """
    chosen, label_map = selected_channels(channels, CHANNELS, CHANNELS), brats_labels(target)
    gathered, names = Gatherer(source=source, is_override=_is_override), {}
    for path in files_below(source):
        match = _FILE.fullmatch(path.name)
        if match:
            names[match[1]] = (match[2], match[3])
            gathered.add(match[1], match[4].lower(), path)
    return Release(
        channels=chosen,
        cases=visits(gathered, names, chosen, label_role="seg", label_map=label_map),
        label_fixes=LABEL_FIXES,
        problems=tuple(gathered.problems),
        notes=tuple(gathered.notes),
    )


def _is_override(path: Path) -> bool:
    # As a word of its own: "uncorrected" is none.
    return any(re.search(r"(?<![a-z])(fixed|corrected)(?![a-z])", part, re.IGNORECASE) for part in path.parts[:-1])
