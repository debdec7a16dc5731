"""UCSF-BMSR: ``100101A/100101A_{T1pre,T1post,FLAIR,subtraction,T2Synth,seg,BraTS-seg}.nii.gz``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from nnunet_lopsided.dataset_conversion.converters.release import (
    POSITIVE,
    Gatherer,
    Release,
    brats_labels,
    files_below,
    selected_channels,
    visits,
)

ALL_CHANNELS = ("T1pre", "T1post", "FLAIR", "subtraction", "T2Synth")
CHANNELS = ALL_CHANNELS[:3]  # subtraction is computed from T1pre and T1post, T2Synth by a network
NOTE = "324 scans of UCSF-BMSR are in BraTS-METS as well: never test on one what was trained on the other"
_FILE = re.compile(r"(\d{6})([A-Za-z]?)_(T1pre|T1post|FLAIR|subtraction|T2Synth|seg|BraTS-seg)\.nii(\.gz)?", re.I)
_ROLES = {name.lower(): name for name in (*ALL_CHANNELS, "seg", "BraTS-seg")}


def find(source: Path, channels: Iterable[str] | None = None, target: str | None = None) -> Release:
    """The cases below ``source``: the six digits are the patient, the letter after them is the time point.

    Args:
        source: any folder above the cases.
        channels: those wanted, of T1pre, T1post, FLAIR, subtraction, T2Synth; default: the first three.
        target: default: every voxel of ``_seg``; ``ET``, ``TC`` or ``WT``: of ``_BraTS-seg``.

    Raises:
        InputError: the folder does not exist, or an argument is not allowed.
    """
    chosen = selected_channels(channels, CHANNELS, ALL_CHANNELS)
    label_role, label_map = ("seg", POSITIVE) if target is None else ("BraTS-seg", brats_labels(target))
    gathered, names = Gatherer(source=source), {}
    for path in files_below(source):
        match = _FILE.fullmatch(path.name)
        if match:
            name = match[1] + match[2].upper()
            names[name] = (match[1], match[2].upper())
            gathered.add(name, _ROLES[match[3].lower()], path)
    return Release(
        channels=chosen,
        cases=visits(gathered, names, chosen, label_role=label_role, label_map=label_map),
        problems=tuple(gathered.problems),
        notes=(*gathered.notes, NOTE),
    )
