"""Datasets in nnU-Net's raw layout: their cases, and new ones that appear only when complete."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.completeness import check_complete
from nnunet_lopsided.files.folders import check_new_folder, new_folder
from nnunet_lopsided.images import n_components, read_image
from nnunet_lopsided.nnunet.dataset_json import DatasetJson, LabelScheme, channel_names, label_scheme, read_dataset_json
from nnunet_lopsided.nnunet.left_out import warn_of_left_out
from nnunet_lopsided.nnunet.paths import (
    PATH_VARIABLES,
    check_case_name,
    check_no_twins,
    is_litter,
    names_of_dataset,
    nearly,
    new_dataset_name,
    nnunet_path,
)

# What our commands write into a raw dataset, by the names on its first level.
_IN_OUR_DATASETS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs", "beliefsTr", "*.json", "*.csv")


@dataclass(frozen=True)
class Case:
    """The files of one case: one image per channel, in channel order, and the label map if there is one."""

    name: str
    images: tuple[Path, ...]
    label: Path | None


@dataclass(frozen=True)
class RawDataset:
    """A dataset folder in nnU-Net's raw layout."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def json(self) -> DatasetJson:
        """The content of dataset.json.

        Raises:
            InputError: the file is missing, or what nnU-Net needs is missing in it.
        """
        path = self.folder / "dataset.json"
        content = read_dataset_json(path)
        missing = [key for key in ("labels", "file_ending") if key not in content]
        if "channel_names" not in content and "modality" not in content:
            missing.append("channel_names")
        if missing:
            raise InputError(f"{path}: missing: {', '.join(missing)}")
        ending = content["file_ending"]
        if not re.fullmatch(r"\.[A-Za-z0-9.]+", ending):
            raise InputError(f"{path}: file_ending: expected an ending such as .nii.gz, found {ending!r}")
        return content

    @property
    def file_ending(self) -> str:
        return str(self.json["file_ending"])

    @property
    def channel_names(self) -> list[str]:
        """Names of the image channels, in the order of the images; see :func:`channel_names`."""
        return channel_names(self.json, self.folder / "dataset.json")

    def training_cases(self) -> list[Case]:
        """The training cases, sorted by name; images may be referenced by dataset.json instead of lying in imagesTr.

        Files that look like further ones, and that nnU-Net does not see, are named on stderr, once.

        Raises:
            InputError: there are none, or a case lacks its label or an image.
        """
        listed = self.json.get("dataset")
        if listed is not None:
            for name, files in listed.items():
                check_case_name(name, self.folder / "dataset.json", self.file_ending)
                if not files["images"]:
                    raise InputError(f"{self.folder / 'dataset.json'}, case {name}: expected images, found none")
                if len(set(files["images"])) < len(files["images"]):
                    raise InputError(
                        f"{self.folder / 'dataset.json'}, case {name}: expected an image of its own for each channel, "
                        f"found {', '.join(files['images'])}"
                    )
            check_no_twins(listed, self.folder / "dataset.json")
            cases = [
                Case(name, tuple(self._expand(image) for image in files["images"]), self._expand(files["label"]))
                for name, files in sorted(listed.items())
            ]
        else:
            cases = self._cases_in("imagesTr", "labelsTr")
        if not cases:
            raise InputError(f"{self.folder}: no training cases in imagesTr ending in {self.file_ending}")
        for case in cases:
            self._check(case)
        if listed is None:
            names = {case.name for case in cases}
            warn_of_left_out(self.folder, names, self.file_ending, self.json.get("numTraining"))
        return cases

    def test_cases(self) -> list[Case]:
        """The cases of imagesTs, sorted by name, with their label from labelsTs where it exists.

        Raises:
            InputError: a case lacks an image of a channel, or has one too many.
        """
        cases = self._cases_in("imagesTs", "labelsTs")
        for case in cases:
            self._check_images(case)
        return [c if c.label is not None and c.label.is_file() else Case(c.name, c.images, None) for c in cases]

    def cases_to_predict(self, folder: Path) -> list[Case]:
        """The cases of a folder with images as this dataset has them, sorted by name, without labels.

        Raises:
            InputError: there are none, a case lacks an image of a channel, or has one too many.
        """
        if not folder.is_dir():
            raise InputError(f"folder not found: {folder}")
        # An absolute path takes the place of the dataset's own folder, when the two are joined.
        cases = self._cases_in(str(folder.absolute()), "")
        if not cases:
            raise InputError(f"{folder}: expected images CASE_0000{self.file_ending}, found none")
        for case in cases:
            self._check_images(case)
        return [Case(case.name, case.images, None) for case in cases]

    @cached_property
    def label_scheme(self) -> LabelScheme:
        """The classes of dataset.json."""
        return label_scheme(self.json, self.folder / "dataset.json")

    def test_files(self) -> list[Path]:
        """The files of imagesTs and labelsTs, relative to the dataset folder, sorted; hidden ones left out."""
        folders = [self.folder / kind for kind in ("imagesTs", "labelsTs")]
        return [
            path.relative_to(self.folder)
            for folder in folders
            for path in (sorted(folder.iterdir()) if folder.is_dir() else [])
            if path.is_file() and not path.name.startswith(".")
        ]

    @property
    def ignore_label(self) -> int | None:
        """The value that marks voxels without annotation, if the dataset has one."""
        return self.label_scheme.ignore

    @property
    def value_to_ignore(self) -> int:
        """The ignore label, or where there is none the value nnU-Net wants it to have: the next after all labels."""
        return max(self.label_scheme.label_values) + 1 if self.ignore_label is None else self.ignore_label

    @property
    def foreground_labels(self) -> dict[str, tuple[int, ...]]:
        """Label values of every foreground class or region by name, without background and ignore."""
        return self.label_scheme.foreground

    @property
    def has_regions(self) -> bool:
        """Whether any class is a region: a set of label values predicted by one sigmoid channel."""
        return self.label_scheme.has_regions

    def _cases_in(self, images: str, labels: str) -> list[Case]:
        """The cases of a folder, each image at the place that the ``_CCCC`` of its name says."""
        cases = []
        for name, by_channel in images_by_case(self.folder / images, self.file_ending).items():
            if list(by_channel) != list(range(len(by_channel))):
                raise InputError(f"{self.name}, case {name}: {self._unlike_channels(by_channel)} (in {images})")
            label = self.folder / labels / (name + self.file_ending)
            cases.append(Case(name, tuple(by_channel.values()), label))
        return cases

    def _unlike_channels(self, present: Iterable[int]) -> str:
        """In words, how the channels of a case differ from those of dataset.json."""
        names, numbers = self.channel_names, sorted(present)
        missing = [f"_{i:04d} ({name}) is missing" for i, name in enumerate(names) if i not in numbers]
        surplus = [f"_{i:04d} is one too many" for i in numbers if i >= len(names)]
        there = ", ".join(f"_{i:04d}" for i in numbers)
        return f"expected {len(names)} channel images, found {there}: {', '.join([*missing, *surplus])}"

    def _expand(self, path: str) -> Path:
        # As nnU-Net does it: environment variables, then relative to the dataset folder.
        return Path(os.path.abspath(self.folder / os.path.expandvars(path)))

    def _check(self, case: Case) -> None:
        if case.label is None or not case.label.is_file():
            alike = nearly(case.label.name, _names_in(case.label.parent)) if case.label is not None else ""
            raise InputError(f"{self.name}, case {case.name}: label not found: {case.label}{alike}")
        self._check_images(case)

    def _check_images(self, case: Case) -> None:
        for image in case.images:
            if not image.is_file():
                raise InputError(f"{self.name}, case {case.name}: image not found: {image}")
        n_channels = len(self.channel_names)
        # A colour image holds several channels in one file; as in nnU-Net, those of all files count.
        surplus = len(case.images) > n_channels
        if surplus or (len(case.images) < n_channels and sum(map(n_components, case.images)) != n_channels):
            raise InputError(f"{self.name}, case {case.name}: {self._unlike_channels(range(len(case.images)))}")


def _names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def images_by_case(folder: Path, file_ending: str) -> dict[str, dict[int, Path]]:
    """The images ``CASE_0000.ending``, ``CASE_0001.ending`` ... of a folder, by case and channel number, both sorted.

    Raises:
        InputError: a file with this ending has no channel number, or names a case that no file may be named after.
    """
    pattern = re.compile(r"(.+)_([0-9]{4})" + re.escape(file_ending), re.DOTALL)
    images: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not path.name.endswith(file_ending) or is_litter(path.name):
            continue
        match = pattern.fullmatch(path.name)
        if match is None:
            raise InputError(f"{ascii(str(path))[1:-1]}: expected an image named CASE_0000{file_ending} by its channel")
        check_case_name(match[1], folder, file_ending)
        images.setdefault(match[1], {})[int(match[2])] = path
    check_no_twins(images, folder)
    return dict(sorted(images.items()))


def raw_dataset(dataset: int | str) -> RawDataset:
    """The raw dataset with this id or name below ``nnUNet_raw``.

    Raises:
        InputError: it does not exist, or several folders carry the id.
    """
    root = nnunet_path("nnUNet_raw")
    names = names_of_dataset(dataset, ("nnUNet_raw",))
    if not names:
        raise InputError(f"dataset {dataset} not found below nnUNet_raw={root}")
    if len(names) > 1:
        raise InputError(f"dataset id {dataset} is ambiguous below nnUNet_raw={root}: {', '.join(names)}")
    raw = RawDataset(root / names[0])
    if not (raw.folder / "dataset.json").is_file():
        raise InputError(f"{raw.folder}: dataset.json not found")
    return raw


def reference(path: Path, folder: Path) -> str:
    """How the dataset in ``folder`` names a file of another dataset, in dataset.json or as a symbolic link.

    Relative where the file lies below the parent of ``folder`` (nnUNet_raw), so that nnUNet_raw may be moved as a
    whole, otherwise absolute. Environment variables in paths are expanded, as nnU-Net would.
    """
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return os.path.relpath(path, folder) if path.is_relative_to(folder.parent) else str(path)


def link_file(link: Path, target: Path, final: Path, *, follow: bool = True) -> None:
    """Make a symbolic link in a folder such as imagesTr of a raw dataset that will be ``final``.

    The link is relative where the target lies below nnUNet_raw, see :func:`reference`, and leads to the file itself
    where the target is a link.

    Args:
        link: the link, one level below the dataset folder, which may still have its unfinished name.
        target: an existing file.
        final: the dataset folder's final path.
        follow: False: the link leads to ``target`` itself, which need not exist yet, even where that is a link.
    """
    # Links are followed by the system, not by name: both ends must be real paths.
    real = target.resolve() if follow else target.parent.resolve() / target.name
    text = reference(real, final.parent.resolve() / final.name)
    # One level below the dataset folder, hence one more step up for relative targets.
    link.symlink_to(text if Path(text).is_absolute() else Path("..") / text)


@contextmanager
def new_raw_dataset(dataset_id: int, name: str, marker: str, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder to build a raw dataset in; it becomes ``nnUNet_raw/DatasetXXX_NAME`` when the block ends.

    Nothing appears under the final name before that, and nothing is left behind when the block raises. The remains of
    a run that was killed are removed by the next run for the same dataset. nnU-Net does not see the unfinished folder.

    Args:
        dataset_id: 1 to 999, carried by no folder below any set nnU-Net path.
        name: letters, digits, ``_``, ``-`` and ``.``.
        marker: name of a file every dataset of this kind holds; only a folder with this file is ever replaced.
        overwrite: allow folders of exactly this id and name. The raw one is replaced when the block ends, what was
            preprocessed or trained from it is left alone.

    Raises:
        InputError: id or name are not allowed, the id is in use, or another process is writing this dataset.
    """
    final = nnunet_path("nnUNet_raw") / new_dataset_name(dataset_id, name)

    def check() -> None:
        check_id_is_free(dataset_id, final, overwrite)

    with new_folder(final, marker, overwrite, check=check, holds=_IN_OUR_DATASETS) as folder:
        yield folder


def check_raw_target(dataset_id: int, name: str, marker: str, overwrite: bool) -> None:
    """Refuse what :func:`new_raw_dataset` would refuse, before hours are spent on what goes into the dataset.

    Raises:
        InputError: see :func:`new_raw_dataset`.
    """
    final = nnunet_path("nnUNet_raw") / new_dataset_name(dataset_id, name)
    check_id_is_free(dataset_id, final, overwrite)
    check_new_folder(final, marker, overwrite, holds=_IN_OUR_DATASETS)


def check_id_is_free(dataset_id: int, final: Path, overwrite: bool) -> None:
    """Refuse a dataset that cannot be written, before hours are spent on what goes into it.

    Args:
        dataset_id: its id.
        final: its folder below nnUNet_raw.
        overwrite: allow folders of exactly this id and name, as :func:`new_raw_dataset` does.

    Raises:
        InputError: a folder below nnU-Net's paths carries the id.
    """
    for variable in PATH_VARIABLES:
        for name in names_of_dataset(dataset_id, (variable,)):
            if overwrite and name == final.name:
                continue
            hint = "; --overwrite replaces it" if not overwrite and final.is_dir() and name == final.name else ""
            raise InputError(f"dataset id {dataset_id} is in use: {Path(os.environ[variable]) / name}{hint}")


def case_images(case: Case, shape: tuple[int, ...], colour: bool = False) -> list[NDArray[np.generic]]:
    """The images of a case, in the order of its files.

    Args:
        case: whose.
        shape: of its label map, which every image must have.
        colour: see :func:`~nnunet_lopsided.images.read_image`.

    Raises:
        InputError: an image cannot be read, has another shape or holds values that are not finite.
    """
    images = []
    for path in case.images:
        image = read_image(path, colour).array
        if image.shape != shape:
            raise InputError(
                f"case {case.name}: expected {path} to have its label's shape {shape}, found {image.shape}"
            )
        if not np.isfinite(image).all():
            raise InputError(f"case {case.name}: {path} holds values that are not finite")
        images.append(image)
    return images


def read_by_nnunet(
    case: str, files: Sequence[Path], read: Callable[[list[str]], tuple[NDArray[np.generic], object]]
) -> NDArray[np.generic]:
    """What one of nnU-Net's readers makes of complete files, shape (c, z, y, x).

    Args:
        case: for error messages.
        files: the files.
        read: the reader's method, called with their paths as text.

    Raises:
        InputError: a file is missing, damaged or unreadable.
    """
    # nnU-Net's readers take the missing end of a file for zeros.
    for file in files:
        check_complete(file)
    try:
        return read([str(file) for file in files])[0]
    except Exception as error:  # each of nnU-Net's readers fails in its own ways
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise InputError(f"{case}: cannot read {files[0]}: {reason}") from error
