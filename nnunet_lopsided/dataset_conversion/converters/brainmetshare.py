"""Stanford's BrainMetShare, as released in PNG slices (the data of Yi et al. 2020) or in NIfTI."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from nnunet_lopsided.dataset_conversion.converters.release import (
    Gatherer,
    LabelMap,
    Release,
    SourceCase,
    files_below,
    selected_channels,
    split_by_folder,
)
from nnunet_lopsided.dataset_conversion.converters.volumes import PngStack, Volume, VolumeFile

# In the order of the PNG release's folders 0 to 3: T1 gradient echo and T1 spin echo after contrast are two channels.
CHANNELS = ("bravo", "t1_pre", "t1_gd", "flair")
PNG_SPACING_MM = (1.0, 0.94, 0.94)  # the PNG release does not say; the paper's
LABELS = LabelMap({1: 1, 255: 1})  # 255 in PNG, 1 in NIfTI
_NIFTI = re.compile(r"(bravo|t1_pre|t1_gd|flair|seg)\.nii(\.gz)?", re.IGNORECASE)
_CASE = re.compile(r"Mets_\w+", re.IGNORECASE)


def find(source: Path, channels: Iterable[str] | None = None) -> Release:
    """The cases below ``source``, of either release.

    A case below a folder such as ``train``, ``test``, ``test1`` or ``mets_stanford_releaseMask_test`` is on that side;
    elsewhere cases without ``seg`` are test cases.

    Args:
        source: any folder above the cases.
        channels: those wanted, of bravo, t1_pre, t1_gd, flair; default: all.

    Raises:
        InputError: the folder does not exist, or a channel is not known.
    """
    chosen = selected_channels(channels, CHANNELS, CHANNELS)
    gathered = Gatherer(source=source)
    for path in files_below(source):
        role, case_folder = _role(path)
        if role is not None and _CASE.fullmatch(case_folder.name):
            # Every slice leads to the same folder, which is added once and not taken for several files of one role.
            target = path.parent if path.suffix.lower() == ".png" else path
            if gathered.files.get(case_folder.name, {}).get(role) != target:
                gathered.add(case_folder.name, role, target)
    cases = []
    for name, files in sorted(gathered.files.items()):
        folder = gathered.shown(next(iter(files.values())).parent)
        label = _volume(files["seg"]) if "seg" in files else None
        images = {channel: _volume(files[channel]) for channel in chosen if channel in files}
        # The release keeps the labels of its test cases to itself.
        split = split_by_folder(folder) or ("test" if label is None else "train")
        gathered.problems += _misaligned(name, images, label)
        cases.append(
            SourceCase(
                name=name, patient=name, source=folder, images=images, label=label, label_map=LABELS, split=split
            )
        )
    return Release(channels=chosen, cases=tuple(cases), problems=tuple(gathered.problems), notes=tuple(gathered.notes))


def _role(path: Path) -> tuple[str | None, Path]:
    """The channel (or ``seg``) a file belongs to, and its case's folder."""
    match = _NIFTI.fullmatch(path.name)
    if match:
        return match[1].lower(), path.parent
    if path.suffix.lower() == ".png":
        folder = path.parent.name.lower()
        role = CHANNELS[int(folder)] if folder in ("0", "1", "2", "3") else "seg" if folder == "seg" else None
        return role, path.parent.parent
    return None, path.parent


def _volume(path: Path) -> Volume:
    return PngStack(path, PNG_SPACING_MM) if path.is_dir() else VolumeFile(path)


def _misaligned(name: str, images: dict[str, Volume], label: Volume | None) -> list[tuple[str, str]]:
    """What is wrong where the folders of a case do not start at the same slice: stacks are aligned by slice number."""
    stacks = [v for v in [label, *images.values()] if isinstance(v, PngStack)]
    problems: list[tuple[str, str]] = []
    for stack in stacks[1:]:
        try:
            numbers, expected = list(stack.slices()), list(stacks[0].slices())
        except ValueError:
            continue  # names that are no numbers are reported when the stack is read
        if numbers[0] != expected[0]:
            difference = f"{stack.path} starts at slice {numbers[0]}, {stacks[0].path} at slice {expected[0]}"
            problems.append((name, difference))
    return problems
