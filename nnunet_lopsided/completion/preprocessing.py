"""The preprocessed folder of a completion, made where it is missing or of another completion."""

from __future__ import annotations

import filecmp
from pathlib import Path

from nnunet_lopsided.completion.completed_variant import BELIEFS
from nnunet_lopsided.files.json import file_digest, read_json
from nnunet_lopsided.nnunet.beliefs import BELIEFS_FILE, FOLDER
from nnunet_lopsided.nnunet.dataset_json import read_dataset_json
from nnunet_lopsided.nnunet.paths import nnunet_path
from nnunet_lopsided.nnunet.plans import read_plans, resolved_configuration
from nnunet_lopsided.variants.sharing import SHARING_FILE, share_preprocessed
from nnunet_lopsided.variants.softening import soften


def share(variant: Path, source: str, n_workers: int) -> Path:
    """The preprocessed folder of a variant, which shares the source's images.

    Args:
        variant: its raw folder.
        source: name of the dataset that it was made from.
        n_workers: cases worked on at the same time.
    """
    folder = nnunet_path("nnUNet_preprocessed") / variant.name
    there = (folder / SHARING_FILE).is_file()
    # By content: a completion that was made anew has the same file names.
    if not (there and _has_labels_of(folder, variant)):
        share_preprocessed(source, variant.name, overwrite=there, n_workers=n_workers)
    return folder


def share_and_soften(variant: Path, source: str, *, configuration: str, plans: str, n_workers: int) -> Path:
    """As :func:`share`, with the variant's soft targets beside the images."""
    folder = share(variant, source, n_workers)
    data = resolved_configuration(read_plans(folder / f"{plans}.json"), configuration)["data_identifier"]
    marker = folder / data / FOLDER / BELIEFS_FILE
    digests = [file_digest(path) for path in sorted((variant / BELIEFS).iterdir())]
    if not (marker.is_file() and sorted(_flat(read_json(marker)["cases"])) == sorted(digests)):
        soften(variant.name, configuration, variant / BELIEFS, plans_name=plans, overwrite=True, n_workers=n_workers)
    return folder


def _has_labels_of(preprocessed: Path, variant: Path) -> bool:
    """Whether nnU-Net's copies of the labels, and the classes, are the variant's."""
    described = [read_dataset_json(folder / "dataset.json")["labels"] for folder in (preprocessed, variant)]
    copies, labels = preprocessed / "gt_segmentations", variant / "labelsTr"
    names = sorted(path.name for path in labels.iterdir())
    return (
        described[0] == described[1]
        and names == sorted(path.name for path in copies.iterdir())
        and all(filecmp.cmp(labels / name, copies / name, shallow=False) for name in names)
    )


def _flat(content: object) -> list[str]:
    if isinstance(content, dict):
        return [text for value in content.values() for text in _flat(value)]
    return [str(content)]
