"""Any folder of images and label maps, found by file name patterns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from nnunet_lopsided.dataset_conversion.converters.bids import gather as gather_bids
from nnunet_lopsided.dataset_conversion.converters.bringing import LABEL
from nnunet_lopsided.dataset_conversion.converters.patient_names import check_regex, patient_of, patients_table
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

_SHOWN = 4  # files that match no pattern, in a note


def find(
    source: Path,
    channels: Mapping[str, str],
    label: str,
    lesion_values: Sequence[int] | None = (1,),
    other_values: Sequence[int] = (),
    patients_regex: str | None = None,
    patients: Path | None = None,
    ignore: Sequence[str] = (),
    bids: bool = False,
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
            Default: every case is a patient of its own, and names that look like sessions of one are asked for.
        patients: a CSV file with the columns ``case`` and ``patient``, perhaps ``time_point``, in its place.
        ignore: patterns of names, or of ends of paths, of folders and files that are not looked at.
        bids: the folder is laid out as BIDS says, and the patterns are those of
            :func:`~nnunet_lopsided.dataset_conversion.converters.bids.gather`: subjects are patients, sessions time
            points.

    Raises:
        InputError: the folder does not exist, or a pattern, the regular expression or the table is not allowed.
    """
    if not channels:
        raise InputError("channels must name at least one NAME=PATTERN")
    if patients_regex is not None:
        check_regex(patients_regex)
    table = None if patients is None else patients_table(patients)
    files, notes = _without_ignored(source, ignore)
    advice = "--ignore FOLDER leaves out what lies in one of these folders, --ignore with a pattern one of the files"
    advice += "; an entity chooses, as in run-1_FLAIR" if bids else ""
    gathered = Gatherer(source=source, advice=advice)
    gathered.notes += notes
    if bids:
        shown, named = gather_bids(gathered, files, channels, label)
    else:
        shown, named = _gather(gathered, files, {**channels, LABEL: label}), {}
    label_map = (
        POSITIVE
        if lesion_values is None
        else LabelMap({**dict.fromkeys(other_values, 0), **dict.fromkeys(lesion_values, 1)})
    )
    cases = []
    for name, found in sorted(gathered.files.items()):
        patient, time_point = named.get(name, (name, ""))
        try:
            if table is not None:
                if name not in table:
                    raise InputError(f"{patients}: no row with its patient (--patients)")
                patient, time_point = table[name]
            elif patients_regex is not None:
                patient, time_point = patient_of(name, patients_regex)
        except InputError as error:
            gathered.problems.append((name, str(error)))
        cases.append(
            SourceCase(
                name=name,
                patient=patient,
                source=gathered.folder_of(name, LABEL),
                images=volumes(found, channels),
                label=VolumeFile(found[LABEL]) if LABEL in found else None,
                label_map=label_map,
                time_point=time_point,
            )
        )
    if not cases:
        raise InputError(
            f"{source}: no case found, expected files that match the patterns of --channels and --labels{shown}"
        )
    stated = table is not None or patients_regex is not None or bids
    return Release(
        channels=tuple(channels),
        cases=tuple(cases),
        problems=tuple(gathered.problems),
        patterns={
            **{name: f"--channels {name}={pattern} matches no file{shown}" for name, pattern in channels.items()},
            LABEL: f"--labels {label} matches no file{shown}",
        },
        patients_unstated=not stated,
        notes=tuple(gathered.notes),
    )


def _without_ignored(source: Path, ignore: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files to look at, and a note for each pattern that left nothing out."""
    used: set[str] = set()
    kept = []
    for path in files_below(source):
        parts = path.relative_to(source).parts
        paths = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        hits = {pattern for pattern in ignore if any(_ignored(place, pattern.strip("/")) for place in paths)}
        used |= hits
        if not hits:
            kept.append(path)
    return kept, [f"--ignore {pattern} leaves nothing out" for pattern in ignore if pattern not in used]


def _ignored(path: str, pattern: str) -> bool:
    """Whether a pattern is that of a path's last names.

    Example:
        >>> [_ignored(path, "old*/masks") for path in ("old1/masks", "a/old/masks", "masks", "cold/masks")]
        [True, True, False, False]
    """
    names, wanted = path.split("/"), pattern.split("/")
    ending = names[-len(wanted) :]
    return len(ending) == len(wanted) and all(map(fnmatchcase, ending, wanted))


def _gather(gathered: Gatherer, files: Sequence[Path], patterns: Mapping[str, str]) -> str:
    """Add the files that match; returns what else there is, for messages."""
    compiled = {role: _compiled(pattern) for role, pattern in patterns.items()}
    unmatched = []
    for path in files:
        # The slash before the path lets every pattern begin at a whole name: "t1.nii" must not match "not1.nii".
        matches = [(role, pattern.fullmatch(f"/{gathered.shown(path)}")) for role, pattern in compiled.items()]
        for role, match in matches:
            if match:
                gathered.add(plain_name(match["case"] if match["case"] else path.parent.name), role, path)
        # A slip in a pattern shows in what it leaves out. Other files, such as tables, are of no interest.
        if not any(match for _, match in matches) and path.name.lower().endswith(IMAGE_ENDINGS):
            unmatched.append(gathered.shown(path))
    if not unmatched:
        return ""
    gathered.notes.append(_left_out(unmatched))
    return f" ({_left_out(unmatched)})"


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
