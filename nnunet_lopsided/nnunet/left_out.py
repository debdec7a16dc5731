"""Files of a raw dataset that look like cases, and that nnU-Net does not look at: said in one line, once."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path

from nnunet_lopsided.nnunet.paths import IMAGE_ENDINGS, is_litter

_SHOWN = 3
_said: set[str] = set()


def warn_of_left_out(folder: Path, cases: Collection[str], file_ending: str, announced: object) -> None:
    """Say on stderr which files of imagesTr and labelsTr belong to no case, and whether dataset.json knows of more.

    Args:
        folder: of the dataset.
        cases: names of the training cases that nnU-Net finds.
        file_ending: of the dataset's files; nnU-Net takes ``.NII.GZ`` for another one.
        announced: ``numTraining`` of dataset.json, which nnU-Net compares only if it is asked to verify.
    """
    images = [
        name
        for name in _image_files(folder / "imagesTr")
        if not name.endswith(file_ending) and _stem(name).rpartition("_")[0] not in cases
    ]
    labels = [
        name
        for name in _image_files(folder / "labelsTr")
        if name.endswith(file_ending) and name[: -len(file_ending)] not in cases
    ]
    problems = []
    if images:
        problems.append(f"imagesTr holds {len(images)} that do not end in {file_ending} ({_listed(images)})")
    if labels:
        problems.append(f"labelsTr holds {len(labels)} of no case ({_listed(labels)})")
    # Anything else than a number is left to nnU-Net, which fails on it where it looks.
    if type(announced) is int and announced > len(cases):
        problems.append(f"dataset.json announces {announced} training cases (numTraining), found {len(cases)}")
    text = f"nnunet-lopsided: warning: {folder}: files are left out, as nnU-Net does: {'; '.join(problems)}"
    if problems and text not in _said:
        _said.add(text)
        print(text, file=sys.stderr)


def _image_files(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [name for name in names if name.lower().endswith(IMAGE_ENDINGS) and not is_litter(name)]


def _stem(name: str) -> str:
    ending = next(ending for ending in IMAGE_ENDINGS if name.lower().endswith(ending))
    return name[: -len(ending)]


def _listed(names: list[str]) -> str:
    shown = ", ".join(ascii(name)[1:-1] for name in names[:_SHOWN])
    return f"{shown}, ..." if len(names) > _SHOWN else shown
