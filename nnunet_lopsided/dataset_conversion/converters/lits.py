"""LiTS: ``volume-N.nii`` and ``segmentation-N.nii`` in ``Training Batch 1`` and ``2``, or the decathlon's Task03."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from nnunet_lopsided.dataset_conversion.converters.ct import Clipped, Cropped
from nnunet_lopsided.dataset_conversion.converters.release import (
    Gatherer,
    LabelMap,
    Release,
    SourceCase,
    Split,
    files_below,
    selected_channels,
    volumes,
)
from nnunet_lopsided.dataset_conversion.converters.volumes import Volume, VolumeFile

CHANNELS = ("CT",)
LABELS = LabelMap({1: 0, 2: 1})  # liver, tumour
# Cases of the split of Shirokikh et al. 2020; the others, 33 to 130, train.
PAPER_TEST, PAPER_VALIDATION = range(28), range(28, 33)
PAPER_HU, PAPER_MARGIN = (-300, 300), 5  # clipped to, and voxels around the liver
_FILES = (
    (re.compile(r"(test-)?(volume|segmentation)-(\d+)\.nii(?:\.gz)?", re.I), None),
    (re.compile(r"(?P<test>)(liver)_(\d+)\.nii(?:\.gz)?", re.I), re.compile(r"(imagesTr|labelsTr|imagesTs)", re.I)),
)


def find(
    source: Path, channels: Iterable[str] | None = None, split: str = "paper", paper_images: bool = False
) -> Release:
    """The scans below ``source``, in either layout, as cases ``liver_N`` (``test-volume-N``: ``test_N``).

    Scans of the challenge's own test set have no label and go into imagesTs.

    Args:
        source: any folder above the files.
        channels: only CT.
        split: ``paper``: scans 0 to 27 are test cases, and the only fold validates on 28 to 32 and trains on the
            others; ``all``: every labelled scan is a training case, in five folds.
        paper_images: clip to +-300 HU and crop to the liver and 5 voxels around it; scans without label are left out.

    Raises:
        InputError: the folder does not exist, or an argument is not allowed.
    """
    chosen = selected_channels(channels, CHANNELS, CHANNELS)
    gathered, numbers = Gatherer(source=source), {}
    for path in files_below(source):
        named = _named(path)
        if named is not None:
            name, role, number = named
            numbers[name] = number
            gathered.add(name, role, path)
    cases = []
    for name, files in gathered.files.items():
        number = numbers[name]
        is_test = number is None or (split == "paper" and number in PAPER_TEST)
        label: Volume | None = VolumeFile(files["label"]) if "label" in files else None
        images = volumes(files, chosen)
        if paper_images and number is None:
            gathered.notes.append(f"{name} is left out: without a label there is no liver to crop to")
            continue
        if paper_images and "label" in files and "CT" in files:
            liver = VolumeFile(files["label"])
            images = {"CT": Cropped(Clipped(VolumeFile(files["CT"]), *PAPER_HU), liver, PAPER_MARGIN)}
            label = Cropped(liver, liver, PAPER_MARGIN)
        side: Split = "test" if is_test else "train"
        cases.append(
            SourceCase(
                name=name,
                patient=name,
                source=gathered.folder_of(name, "CT"),
                images=images,
                label=label,
                label_map=LABELS,
                split=side,
            )
        )
        if label is None and number is not None and is_test:
            gathered.problems.append((name, f"no label found in {gathered.folder_of(name, 'CT')}"))
    training = [case.name for case in cases if case.split == "train"]
    validation = sorted(name for name in training if numbers[name] in PAPER_VALIDATION)
    # In part of a release one side may be empty; then the folds are made by patient, and a note says so.
    folds = ({"train": sorted(set(training) - set(validation)), "val": validation},) if split == "paper" else None
    return Release(
        channels=chosen, cases=tuple(cases), problems=tuple(gathered.problems), notes=tuple(gathered.notes), folds=folds
    )


def _named(path: Path) -> tuple[str, str, int | None] | None:
    """Case, role and number (None for the challenge's test set) of a file; None for other files."""
    for pattern, folder in _FILES:
        match = pattern.fullmatch(path.name)
        if not match or (folder and not folder.fullmatch(path.parent.name)):
            continue
        number = int(match[3])
        if folder is None:
            role = "label" if match[2].lower() == "segmentation" else "CT"
            return (f"test_{number}", role, None) if match[1] else (f"liver_{number}", role, number)
        role = "label" if path.parent.name.lower() == "labelstr" else "CT"
        return f"liver_{number}", role, None if path.parent.name.lower() == "imagests" else number
    return None
