"""Where nnU-Net keeps things: datasets, cases, predictions and results. File layouts are known here and nowhere else.

Only paths and JSON; nnunetv2 itself is not imported, so commands that only look at files start fast.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunet_lopsided.errors import InputError

PATH_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def nnunet_path(variable: str) -> Path:
    """The folder an nnU-Net path variable names.

    Args:
        variable: ``nnUNet_raw``, ``nnUNet_preprocessed`` or ``nnUNet_results``.

    Raises:
        InputError: the variable is not set, or the folder does not exist.
    """
    value = os.environ.get(variable)
    if not value:
        raise InputError(f"{variable} is not set: export {variable}=/path/to/{variable}")
    if not Path(value).is_dir():
        raise InputError(f"{variable} is set to {value}, which is not a folder")
    return Path(value)


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
    def json(self) -> dict[str, Any]:
        """The content of dataset.json."""
        return read_json(self.folder / "dataset.json")

    @property
    def file_ending(self) -> str:
        return str(self.json["file_ending"])

    def training_cases(self) -> list[Case]:
        """The training cases, sorted by name; images may be referenced by dataset.json instead of lying in imagesTr.

        Raises:
            InputError: there are none, or a case lacks its label or an image.
        """
        listed = self.json.get("dataset")
        if listed is not None:
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
        return cases

    def test_cases(self) -> list[Case]:
        """The cases of imagesTs, sorted by name, with their label from labelsTs where it exists."""
        cases = self._cases_in("imagesTs", "labelsTs")
        return [c if c.label is not None and c.label.is_file() else Case(c.name, c.images, None) for c in cases]

    @property
    def ignore_label(self) -> int | None:
        """The value that marks voxels without annotation, if the dataset has one."""
        value = self.json["labels"].get("ignore")
        return None if value is None else int(value)

    @property
    def foreground_labels(self) -> dict[str, tuple[int, ...]]:
        """Label values of every foreground class or region by name, without background and ignore."""
        found = {}
        for name, value in self.json["labels"].items():
            values = tuple(int(v) for v in value) if isinstance(value, (list, tuple)) else (int(value),)
            if name != "ignore" and values != (0,):
                found[name] = values
        return found

    @property
    def has_regions(self) -> bool:
        """Whether any class is a region: a set of label values predicted by one sigmoid channel."""
        return any(
            isinstance(v, (list, tuple)) and len(v) > 1 for v in self.json["labels"].values()
        )

    def _cases_in(self, images: str, labels: str) -> list[Case]:
        return [
            Case(name, tuple(paths), self.folder / labels / (name + self.file_ending))
            for name, paths in images_by_case(self.folder / images, self.file_ending).items()
        ]

    def _expand(self, path: str) -> Path:
        # As nnU-Net does it: environment variables, then relative to the dataset folder.
        return Path(os.path.abspath(self.folder / os.path.expandvars(path)))

    def _check(self, case: Case) -> None:
        if case.label is None or not case.label.is_file():
            raise InputError(f"{self.name}, case {case.name}: label not found: {case.label}")
        n_channels = len(self.json.get("channel_names", self.json.get("modality", {})))
        if self.json.get("dataset") is None and n_channels and len(case.images) not in (n_channels, 1):
            raise InputError(
                f"{self.name}, case {case.name}: expected {n_channels} channel images, found {len(case.images)}"
            )
        for image in case.images:
            if not image.is_file():
                raise InputError(f"{self.name}, case {case.name}: image not found: {image}")


def images_by_case(folder: Path, file_ending: str) -> dict[str, list[Path]]:
    """The images ``CASE_0000.ending``, ``CASE_0001.ending`` ... of a folder, by case, both sorted."""
    pattern = re.compile(r"(.+)_(\d{4})" + re.escape(file_ending))
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = pattern.fullmatch(path.name)
        if match and not path.name.startswith("."):
            found.setdefault(match[1], []).append(path)
    return dict(sorted(found.items()))


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
    found = RawDataset(root / names[0])
    if not (found.folder / "dataset.json").is_file():
        raise InputError(f"{found.folder}: dataset.json not found")
    return found


def names_of_dataset(dataset: int | str, variables: tuple[str, ...] = PATH_VARIABLES) -> list[str]:
    """Names of the folders that carry this dataset id (or name) below the set nnU-Net paths, sorted.

    nnU-Net refuses to work when two different names carry one id anywhere below its three paths.
    """
    text = str(dataset)
    pattern = re.compile(rf"Dataset{int(text):03d}_.+" if text.isdigit() else re.escape(text))
    found = set()
    for variable in variables:
        root = os.environ.get(variable)
        if root and Path(root).is_dir():
            found |= {p.name for p in Path(root).iterdir() if p.is_dir() and pattern.fullmatch(p.name)}
    return sorted(found)


def preprocessed_folder(dataset: int | str) -> Path:
    """The dataset's folder below ``nnUNet_preprocessed``.

    Raises:
        InputError: it does not exist.
    """
    root = nnunet_path("nnUNet_preprocessed")
    names = names_of_dataset(dataset, ("nnUNet_preprocessed",))
    if len(names) != 1:
        raise InputError(
            f"dataset {dataset}: expected one folder below nnUNet_preprocessed={root}, found {names or 'none'}; "
            "run nnUNetv2_plan_and_preprocess first"
        )
    return root / names[0]


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"file not found: {path}") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that ``path`` is never seen half-written."""
    unfinished = path.with_name(f".unfinished-{path.name}")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    unfinished.replace(path)
