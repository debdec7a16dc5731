"""Any folder of images and label maps, found by file name patterns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_lopsided.dataset_conversion.converters.release import (
    POSITIVE,
    Gatherer,
    LabelMap,
    Release,
    SourceCase,
    files_below,
    volumes,
)
from nnunet_lopsided.dataset_conversion.converters.volumes import VolumeFile
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.paths import IMAGE_ENDINGS, plain_name

_LABEL = "the label"
_SHOWN = 4  # files that match no pattern, in a note


def find(
    source: Path,
    channels: Mapping[str, str],
    label: str,
    lesion_values: Sequence[int] | None = (1,),
    other_values: Sequence[int] = (),
    patients_regex: str | None = None,
) -> Release:
    """The cases below ``source`` whose files match the patterns.

    A pattern is compared with the end of a file's path: ``*_flair.nii.gz`` with its name, ``flair/*.nii.gz`` with its
    name and folder. What the ``*`` of the file name stands for is the case; without a ``*`` there, the name of the
    folder is (``flair.nii.gz`` in a folder per case). Files of one case may lie in different folders.

    Args:
        source: any folder above the files.
        channels: a pattern by channel name, in the order of the channels.
        label: the pattern of the label maps.
        lesion_values: label values that are lesion; None: every positive whole number.
        other_values: further values that may occur and are not lesion.
        patients_regex: searched in a case's name: its first group is the patient, its second, if any, the time point.
            Default: every case is a patient of its own.

    Raises:
        InputError: the folder does not exist, a pattern or the regular expression is not allowed, or does not fit a
            case.
    """
    patterns = {**channels, _LABEL: label}
    if not channels:
        raise InputError("channels must name at least one NAME=PATTERN")
    compiled = {role: _compiled(pattern) for role, pattern in patterns.items()}
    gathered = Gatherer(source=source)
    unmatched = []
    for path in files_below(source):
        # The slash before the path lets every pattern begin at a whole name: "t1.nii" must not match "not1.nii".
        matches = [(role, pattern.fullmatch(f"/{gathered.shown(path)}")) for role, pattern in compiled.items()]
        for role, match in matches:
            if match:
                gathered.add(plain_name(match["case"] if match["case"] else path.parent.name), role, path)
        # A slip in a pattern shows in what it leaves out. Other files, such as tables, are of no interest.
        if not any(match for _, match in matches) and path.name.lower().endswith(IMAGE_ENDINGS):
            unmatched.append(gathered.shown(path))
    if unmatched:
        gathered.notes.append(_left_out(unmatched))
    label_map = (
        POSITIVE
        if lesion_values is None
        else LabelMap({**dict.fromkeys(other_values, 0), **dict.fromkeys(lesion_values, 1)})
    )
    cases = []
    for name, files in sorted(gathered.files.items()):
        patient, time_point = _patient(name, patients_regex)
        cases.append(
            SourceCase(
                name=name,
                patient=patient,
                source=gathered.folder_of(name, _LABEL),
                images=volumes(files, channels),
                label=VolumeFile(files[_LABEL]) if _LABEL in files else None,
                label_map=label_map,
                time_point=time_point,
            )
        )
    return Release(
        channels=tuple(channels), cases=tuple(cases), problems=tuple(gathered.problems), notes=tuple(gathered.notes)
    )


def _left_out(files: Sequence[str]) -> str:
    shown = ", ".join(ascii(file)[1:-1] for file in files[:_SHOWN])
    return f"{len(files)} image files match no pattern: {shown}{', ...' if len(files) > _SHOWN else ''}"


def _compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression for the end of a path that starts with a slash; group ``case`` is the file name's ``*``.

    Example:
        >>> _compiled("*_t1.nii.gz").fullmatch("/a/sub-01_t1.nii.gz")["case"]
        'sub-01'
    """
    *folders, name = pattern.strip("/").split("/")
    if name.count("*") > 1 or not name:
        raise InputError(f"a pattern must have at most one * in the file name, got {pattern!r}")
    before, star, after = name.partition("*")
    in_name = f"{re.escape(before)}(?P<case>{'[^/]+' if star else ''}){re.escape(after)}"
    # A star stands for part of one name, never for several folders.
    in_folders = "".join(re.escape(part).replace(r"\*", "[^/]*") + "/" for part in folders)
    return re.compile(f".*/{in_folders}{in_name}")


def _patient(name: str, regex: str | None) -> tuple[str, str]:
    if regex is None:
        return name, ""
    try:
        match = re.search(regex, name)
    except re.error as error:
        raise InputError(f"patients regex {regex!r} is not a regular expression: {error}") from None
    if match is None or not match.groups() or not match[1]:
        raise InputError(f"patients regex {regex!r} finds no patient (first group) in the case name {name!r}")
    return match[1], (match[2] or "") if len(match.groups()) > 1 else ""
