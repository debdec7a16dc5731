"""NYUMets-Brain: ``patientId/<8 digits>/studyId/<10 digits>/{T1,CT1,T2,FLAIR,RTSTRUCT_segmentation,...}.nii.gz``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from nnunet_lopsided.dataset_conversion.converters.release import (
    POSITIVE,
    Gatherer,
    Release,
    SourceCase,
    files_below,
    selected_channels,
    volumes,
)
from nnunet_lopsided.dataset_conversion.converters.volumes import VolumeFile

ALL_CHANNELS = ("T1", "CT1", "T2", "FLAIR", "RTSTRUCT_MRI")
CHANNELS = ALL_CHANNELS[:4]
LABEL = "RTSTRUCT_segmentation"
NOTE = (
    "the masks of NYUMets are targets of radiosurgery: lesions that were not treated are not annotated, in training "
    "and in test cases"
)
_FILE = re.compile(r"(T1|CT1|T2|FLAIR|RTSTRUCT_MRI|RTSTRUCT_segmentation)\.nii(\.gz)?", re.IGNORECASE)
_ROLES = {name.lower(): name for name in (*ALL_CHANNELS, LABEL)}


def find(source: Path, channels: Iterable[str] | None = None) -> Release:
    """The studies with a segmentation below ``source``; a study is a time point of its patient.

    Studies without ``RTSTRUCT_segmentation``, most of the release, are left out and counted in a note.

    Args:
        source: any folder above ``patientId``.
        channels: those wanted, of T1, CT1, T2, FLAIR, RTSTRUCT_MRI; default: the first four. RTSTRUCT_MRI is the
            image the segmentation was drawn on.

    Raises:
        InputError: the folder does not exist, or a channel is not known.
    """
    chosen = selected_channels(channels, CHANNELS, ALL_CHANNELS)
    gathered, names = Gatherer(source=source), {}
    for path in files_below(source):
        match, study = _FILE.fullmatch(path.name), path.parent
        patient = study.parent.parent
        is_study = study.name.isdecimal() and study.parent.name == "studyId" and patient.name.isdecimal()
        if match and is_study and patient.parent.name == "patientId":
            name = f"{patient.name}_{study.name}"
            names[name] = (patient.name, study.name)
            gathered.add(name, _ROLES[match[1].lower()], path)
    cases = [
        SourceCase(
            name=name,
            patient=patient,
            source=gathered.folder_of(name, LABEL),
            images=volumes(gathered.files[name], chosen),
            label=VolumeFile(gathered.files[name][LABEL]),
            label_map=POSITIVE,
            time_point=study,
        )
        for name, (patient, study) in sorted(names.items())
        # A study none of whose names can be used is among the problems alone.
        if LABEL in gathered.files.get(name, {})
    ]
    left_out = len(names) - len(cases)
    notes = [NOTE, f"{left_out} studies without {LABEL} are left out"] if left_out else [NOTE]
    return Release(
        channels=chosen, cases=tuple(cases), problems=tuple(gathered.problems), notes=(*gathered.notes, *notes)
    )
