"""The multiple sclerosis lesions of Ljubljana: ``patientNN/{FLAIR,T1W,T1WKS,T2W,consensus_gt,brainmask}.nii.gz``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from nnunet_lopsided.dataset_conversion.converters.release import (
    BINARY,
    Gatherer,
    Release,
    SourceCase,
    files_below,
    selected_channels,
    volumes,
)
from nnunet_lopsided.dataset_conversion.converters.volumes import VolumeFile

CHANNELS = ("FLAIR", "T1W", "T1WKS", "T2W")
_FILE = re.compile(r"(?:patient\d+_)?(FLAIR|T1W|T1WKS|T2W|consensus_gt)\.nii(\.gz)?", re.IGNORECASE)
_ROLES = {name.lower(): name for name in (*CHANNELS, "consensus_gt")}


def find(source: Path, channels: Iterable[str] | None = None) -> Release:
    """The patients below ``source``; images are used as they are, the brain mask is not.

    Args:
        source: any folder above the patients.
        channels: those wanted, of FLAIR, T1W, T1WKS (after contrast), T2W; default: all.

    Raises:
        InputError: the folder does not exist, or a channel is not known.
    """
    chosen = selected_channels(channels, CHANNELS, CHANNELS)
    gathered = Gatherer(source=source)
    for path in files_below(source):
        match = _FILE.fullmatch(path.name)
        # By the folder, since file names may lack the patient.
        if match and re.fullmatch(r"patient\d+", path.parent.name, re.IGNORECASE):
            gathered.add(path.parent.name, _ROLES[match[1].lower()], path)
    cases = [
        SourceCase(
            name=name,
            patient=name,
            source=gathered.folder_of(name, "consensus_gt"),
            images=volumes(files, chosen),
            label=VolumeFile(files["consensus_gt"]) if "consensus_gt" in files else None,
            label_map=BINARY,
        )
        for name, files in sorted(gathered.files.items())
    ]
    return Release(channels=chosen, cases=tuple(cases), problems=tuple(gathered.problems), notes=tuple(gathered.notes))
