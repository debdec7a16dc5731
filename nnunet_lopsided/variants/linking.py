"""Datasets that link to the files of another."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.nnunet.paths import new_dataset_name, nnunet_path, plain_name
from nnunet_lopsided.nnunet.patients import CASES_FILE
from nnunet_lopsided.nnunet.raw import Case, RawDataset, link_file, new_raw_dataset, reference


def link_with_test_set(dataset: RawDataset, output_id: int, every: int = 4) -> Path:
    """Link a dataset into nnUNet_raw under another id, with a labelled test set.

    If the dataset has test labels for all of imagesTs, its own test set is linked; otherwise every ``every``-th
    training case, in the order of names, is a test case instead. Nothing is known of patients here: cases of one
    patient can end up on both sides.

    Args:
        dataset: any folder in nnU-Net's raw layout, inside nnUNet_raw or not.
        output_id: id of the linked dataset, not in use.
        every: which training cases are held out.

    Returns:
        The new folder.

    Raises:
        InputError: the dataset is broken or has too few cases, or the id is in use.
    """
    training, test = dataset.training_cases(), dataset.test_cases()
    if not test or any(case.label is None for case in test):
        # Not every case at the end: releases are often sorted by site, scanner or date, and the test set should have
        # all.
        test = training[::every]
        training = [case for case in training if case not in test]
    # nnU-Net validates on cases that it does not train on, so it needs two.
    if len(training) < 2:
        raise InputError(f"{dataset.folder}: at least 2 cases to train and 1 to test are needed")
    # The id of the folder belongs to the source; nnU-Net wants one of its own before the name.
    name = plain_name(re.sub(r"^Dataset[0-9]{3}_", "", dataset.name))
    return link_cases(dataset, output_id, name, training=training, test=test)


def link_cases(
    dataset: RawDataset, output_id: int, name: str, *, training: Sequence[Case], test: Sequence[Case]
) -> Path:
    """Link cases of a dataset into nnUNet_raw as a dataset of their own.

    Args:
        dataset: any folder in nnU-Net's raw layout, inside nnUNet_raw or not.
        output_id: id of the linked dataset, not in use.
        name: its folder name after ``DatasetXXX_``.
        training: its training cases, with labels.
        test: its test cases, with labels.

    Returns:
        The new folder.

    Raises:
        InputError: the id is in use.
    """
    with new_raw_dataset(output_id, name, marker="dataset.json") as folder:
        for split, cases in (("Tr", training), ("Ts", test)):
            for kind in ("images", "labels"):
                (folder / f"{kind}{split}").mkdir()
            for case in cases:
                assert case.label is not None, "both sides have labels"
                _link(folder / f"labels{split}" / (case.name + dataset.file_ending), case.label)
                for kind, file in (("images", case.images[0]), ("labels", case.label)):
                    # nnU-Net's TIFF reader looks for it beside the image and beside the label, by the name of the case.
                    spacing = file.with_name(f"{case.name}.json")  # beside a TIFF: its voxel size
                    if spacing.is_file():
                        _link(folder / f"{kind}{split}" / spacing.name, spacing)
                for channel, image in enumerate(case.images):
                    _link(folder / f"images{split}" / f"{case.name}_{channel:04d}{dataset.file_ending}", image)
        content = {key: value for key, value in dataset.json.items() if key != "dataset"}
        write_json(folder / "dataset.json", {**content, "numTraining": len(training)})
    return nnunet_path("nnUNet_raw") / new_dataset_name(output_id, name)


def _link(link: Path, target: Path) -> None:
    # Links of links would break when the dataset between is deleted.
    link.symlink_to(target.resolve())


def link_test_files(dataset: RawDataset, folder: Path, final: Path) -> None:
    """Link the source's test images and labels into a variant that is built in ``folder`` and becomes ``final``.

    Those that lie there already, such as censored labels, stay.
    """
    for path in dataset.test_files():
        link = folder / path
        if link.exists():
            continue
        link.parent.mkdir(exist_ok=True)
        link_file(link, dataset.folder / path, final)


def write_dataset_files(
    dataset: RawDataset,
    training: Sequence[Case],
    folder: Path,
    final: Path,
    *,
    keep_splits: bool = True,
    labels: dict[str, object] | None = None,
) -> None:
    """Write the dataset.json of a variant, which references the source's images, and copy what tells its patients.

    Args:
        dataset: the source.
        training: those of its cases that the variant has, with their labels in ``labelsTr``.
        folder: where the variant is built.
        final: where it will lie.
        keep_splits: copy the source's splits_final.json, if it has one.
        labels: the variant's ``labels`` of dataset.json; None: the source's.
    """
    content = {key: value for key, value in dataset.json.items() if key != "dataset"}
    if labels is not None:
        content["labels"] = labels
    content["numTraining"] = len(training)
    content["dataset"] = {
        case.name: {
            "images": [reference(image, final) for image in case.images],
            "label": f"labelsTr/{case.name}{dataset.file_ending}",
        }
        for case in training
    }
    write_json(folder / "dataset.json", content)
    splits, patients = dataset.folder / "splits_final.json", dataset.folder / CASES_FILE
    # Copied, not linked: they are small, and a split edited in the variant must not change the source's.
    if patients.is_file():
        shutil.copyfile(patients, folder / patients.name)
    if splits.is_file() and keep_splits:
        shutil.copyfile(splits, folder / splits.name)
