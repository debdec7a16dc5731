"""Soft targets of a preprocessed dataset: images of beliefs brought to the grid on which nnU-Net trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided import __version__
from nnunet_lopsided.errors import InputError, InputErrors
from nnunet_lopsided.evaluation.loading import (
    LesionClass,
    checked_probability,
    finite_on_disk,
    probability_of_array,
)
from nnunet_lopsided.evaluation.plausibility import ROUNDING
from nnunet_lopsided.files.folders import new_folder
from nnunet_lopsided.files.json import file_digest, write_json
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.images import difference, read_header, read_image
from nnunet_lopsided.nnunet.beliefs import (
    BELIEFS_FILE,
    FOLDER,
    LEVELS,
    belief_name,
    lesion_classes,
    preprocessed_belief,
    to_levels,
    write_belief,
)
from nnunet_lopsided.nnunet.configurations import Configuration, data_configurations
from nnunet_lopsided.nnunet.dataset_json import LabelScheme, label_scheme, read_dataset_json
from nnunet_lopsided.nnunet.image_reader import ImageReader
from nnunet_lopsided.nnunet.paths import ARRAY_ENDINGS, IMAGE_ENDINGS
from nnunet_lopsided.nnunet.plans import read_plans, resolved_configuration
from nnunet_lopsided.nnunet.preprocessed import preprocessed_cases, preprocessed_folder
from nnunet_lopsided.nnunet.preprocessed_case import CleanSegmentation, read_clean
from nnunet_lopsided.nnunet.raw import read_by_nnunet

_ALL_CLASSES = ""  # in place of a class: a file with the channels of all


@dataclass(frozen=True)
class SoftenedDataset:
    """What :func:`soften` made.

    Attributes:
        folder: where the beliefs lie.
        n_cases: training cases.
        without: those without a belief.
    """

    folder: Path
    n_cases: int
    without: tuple[str, ...]


def soften(
    dataset: int | str,
    configuration: str,
    source: Path,
    *,
    plans_name: str = "nnUNetPlans",
    overwrite: bool = False,
    n_workers: int = 2,
) -> SoftenedDataset:
    """Bring images of beliefs to the grid of a dataset's preprocessed images, beside which trainers find them.

    A belief says of a voxel how probable it is that it is lesion; it counts where the label says background. With one
    lesion class (or region) ``source`` holds ``CASE.nii.gz`` (another image, ``.npy`` or ``.npz``), with several
    ``CASE__NAME.nii.gz`` for any of them, or ``CASE.npz`` with the channels of all as nnU-Net saves probabilities.

    Args:
        dataset: id or name of a dataset that nnU-Net has planned and preprocessed.
        configuration: the beliefs are for all configurations that share its preprocessed data.
        source: the folder of beliefs; a case without a file has belief 0 everywhere.
        plans_name: whose configuration.
        overwrite: replace what this function made before.
        n_workers: how many cases are worked on at the same time.

    Raises:
        InputError: nothing is preprocessed, a file belongs to no case, is unreadable or damaged, lies elsewhere than
            the label or holds values outside [0, 1], beliefs of exclusive classes sum to more than 1, or there are
            beliefs already.
    """
    folder = preprocessed_folder(dataset)
    scheme = label_scheme(read_dataset_json(folder / "dataset.json"), folder / "dataset.json")
    data = _configuration(folder, plans_name, configuration)
    data_folder = folder / data.folder
    cases = preprocessed_cases(data_folder) if data_folder.is_dir() else []
    if not cases:
        raise InputError(f"{data_folder}: nothing is preprocessed; run nnUNetv2_preprocess first")
    # All names are checked before the first file is read: a wrong name is a slip that concerns many.
    files = belief_files(source, cases, lesion_classes(scheme))
    with new_folder(data_folder / FOLDER, BELIEFS_FILE, overwrite) as unfinished:
        work = _Softening(
            scheme=scheme,
            configuration=data,
            data_folder=data_folder,
            labels=folder / "gt_segmentations",
            target=unfinished,
        )
        digests = for_each(lambda case: work.soften(case, files[case]), list(files), n_workers, "softening")
        without = tuple(case for case in cases if case not in files)
        write_json(
            unfinished / BELIEFS_FILE,
            {
                "tool": "nnunet-lopsided",
                "version": __version__,
                "dataset": folder.name,
                "plans": plans_name,
                "configuration": configuration,
                "source": str(source.absolute()),
                "classes": list(lesion_classes(scheme)),
                "levels": LEVELS,
                "cases": dict(zip(files, digests, strict=True)),
                "cases_without": list(without),
            },
        )
    return SoftenedDataset(data_folder / FOLDER, len(cases), without)


def belief_files(source: Path, cases: list[str], classes: tuple[str, ...]) -> dict[str, dict[str, Path]]:
    """The files of beliefs by case and class; the class is empty where a file has the channels of all.

    Hidden and ``.json`` files are passed over.

    Args:
        source: the folder.
        cases: those it may hold.
        classes: the lesion classes or regions.

    Raises:
        InputError: the folder is missing or holds no belief.
        InputErrors: files belong to no case and class, or two to the same; a line for each.
    """
    if not source.is_dir():
        raise InputError(f"folder not found: {source}")
    expected = _expected_names(cases, classes)
    by_case: dict[str, dict[str, Path]] = {}
    problems = []
    for path in sorted(source.iterdir()):
        # nnU-Net leaves dataset.json, plans.json and arguments of the prediction beside what it predicts.
        if path.name.startswith(".") or path.suffix == ".json":
            continue
        case, name = expected.get(_stem(path), ("", ""))
        if not case or (name == _ALL_CLASSES and path.suffix != ".npz"):
            problems.append(f"{path}: belongs to no case, expected {_naming(classes)} with a case that is preprocessed")
            continue
        others = by_case.setdefault(case, {})
        clash = [name] if name in others else [n for n in others if _ALL_CLASSES in (n, name)]
        if clash:
            problems.append(f"case {case}: expected one file for a class, found {others[clash[0]].name} and {path}")
        others[name] = path
    if problems:
        raise InputErrors(problems)
    if not by_case:
        raise InputError(f"{source}: expected {_naming(classes)}, found no such file")
    return dict(sorted(by_case.items()))


def _expected_names(cases: list[str], classes: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Case and class by the name of a file without its ending."""
    if len(classes) == 1:
        return {case: (case, classes[0]) for case in cases}
    names = {case: (case, _ALL_CLASSES) for case in cases}
    for case in cases:
        for name in classes:
            file = belief_name(case, name)
            # A case may be called like another one with a class behind it.
            if names.setdefault(file, (case, name)) != (case, name):
                raise InputError(f"case {case}: {file} names its class {name} and another case: rename one")
    return names


def _stem(path: Path) -> str:
    """The name without the ending of an image or array; empty for other files."""
    endings = (*IMAGE_ENDINGS, *ARRAY_ENDINGS)
    ending = next((ending for ending in endings if path.name.lower().endswith(ending)), None)
    return path.name[: -len(ending)] if ending and path.is_file() else ""


def _naming(classes: tuple[str, ...]) -> str:
    if len(classes) == 1:
        return "CASE.nii.gz (or another image, .npy, .npz)"
    return f"CASE__NAME.nii.gz (NAME: {', '.join(classes)}) or CASE.npz"


def _configuration(folder: Path, plans_name: str, name: str) -> Configuration:
    plans = read_plans(folder / f"{plans_name}.json")
    if name not in plans["configurations"]:
        known = ", ".join(plans["configurations"])
        raise InputError(f"configuration must be one of {known} ({folder / plans_name}.json), got {name}")
    return data_configurations([plans])[resolved_configuration(plans, name)["data_identifier"]]


@dataclass(frozen=True, kw_only=True)
class _Softening:
    scheme: LabelScheme
    configuration: Configuration
    data_folder: Path
    labels: Path
    target: Path

    def soften(self, case: str, files: dict[str, Path]) -> dict[str, str]:
        """Write the belief of a case; returns the digests of its files."""
        clean = read_clean(self.data_folder, case)
        belief = self._read(case, files, clean)
        exclusive = not self.scheme.has_regions
        # Regions contain each other, so their beliefs may sum to more.
        if exclusive and (largest := belief.sum(axis=0).max(initial=0)) > 1 + ROUNDING:
            names = ", ".join(path.name for path in files.values())
            raise InputError(f"case {case}: expected beliefs that sum to at most 1, found {largest:.6g} in {names}")
        on_grid = preprocessed_belief(case, belief, self.configuration, clean)
        write_belief(self.target, case, to_levels(on_grid, exclusive), self.data_folder)
        return {path.name: file_digest(path) for path in files.values()}

    def _read(self, case: str, files: dict[str, Path], clean: CleanSegmentation) -> NDArray[np.float32]:
        """The belief (K, z, y, x) as nnU-Net's reader orders the axes; classes without a file are 0."""
        before = clean.properties["shape_before_cropping"]
        # nnU-Net notes the shape after transposing.
        shape = tuple(int(before[axis]) for axis in self.configuration.plans.transpose_backward)
        belief = np.zeros((len(lesion_classes(self.scheme)), *shape), np.float32)
        for channel, name in zip(belief, lesion_classes(self.scheme), strict=True):
            path = files.get(name, files.get(_ALL_CLASSES))
            if path is not None:
                try:
                    channel[...] = self._read_class(case, path, name, shape).reshape(shape)
                except InputError as error:
                    raise InputError(f"case {case}: {error}") from error
        return belief

    def _read_class(self, case: str, path: Path, name: str, shape: tuple[int, ...]) -> NDArray[np.floating]:
        # In nnU-Net's copy of the label lies the geometry that the preprocessed data had before.
        label = next(iter(self._labels_of(case)), None)
        if label is None:
            raise InputError(f"no label in {self.labels}: preprocess the dataset again")
        header = read_header(label)
        if path.suffix in ARRAY_ENDINGS:
            # nnU-Net reads a 2D image as one slice.
            return probability_of_array(path, shape[-len(header.shape) :], LesionClass(self.scheme, name))
        differing = difference(header, read_header(path))
        if differing is not None:
            raise InputError(f"label and belief {path} differ: {differing}")
        # ITK reads NaN in NIfTI as 0, which would pass for a belief.
        if not finite_on_disk(path):
            raise InputError(f"expected finite values within [0, 1], found NaN or infinity in {path}")
        reader: type[ImageReader] = self.configuration.plans.image_reader_writer_class
        if path.name.lower().endswith(tuple(reader.supported_file_endings)):
            # It may turn the axes, as it did with the label.
            return checked_probability(path, read_by_nnunet(f"case {case}", [path], reader().read_images))
        return checked_probability(path, read_image(path).array)

    def _labels_of(self, case: str) -> Iterator[Path]:
        return (path for ending in IMAGE_ENDINGS if (path := self.labels / f"{case}{ending}").is_file())
