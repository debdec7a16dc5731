"""Where nnU-Net keeps things: datasets, cases, predictions and results. File layouts are known here and nowhere else.

Only paths and JSON; nnunetv2 itself is not imported, so commands that only look at files start fast.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunet_lopsided.errors import InputError, InputErrors

PATH_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
# The longer of two endings that both fit comes first.
IMAGE_ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".gipl", ".png", ".bmp", ".tif", ".tiff")
ARRAY_ENDINGS = (".npz", ".npy")


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
class LabelScheme:
    """The classes of a dataset and the channels in which nnU-Net predicts them.

    Attributes:
        foreground: label values of every foreground class or region by name, in the order of dataset.json.
        ignore: the value that marks voxels without annotation, or None.
        has_regions: whether any class is a region (a set of label values). Then every foreground class has one sigmoid
            channel, in the order of ``foreground``, and background has none; otherwise there is one softmax channel
            per label value, background first.
    """

    foreground: dict[str, tuple[int, ...]]
    ignore: int | None
    has_regions: bool

    @property
    def label_values(self) -> tuple[int, ...]:
        """Every label value, background included and ignore left out, ascending."""
        return tuple(sorted({0}.union(*self.foreground.values())))

    @property
    def n_channels(self) -> int:
        """Channels of the network's output."""
        return len(self.foreground) if self.has_regions else len(self.label_values)

    def channels_of(self, name: str) -> tuple[int, ...]:
        """Channels of the class ``name``: one for a region, else the softmax channels whose sum is its probability.

        Source: ``LabelManager`` of nnU-Net 2.8.1: regions keep dataset.json's order without background; softmax
        channels follow the sorted label values, so that channel and value are the same when values are consecutive.

        Example:
            >>> regions = LabelScheme({"whole": (1, 2), "core": (2,)}, None, has_regions=True)
            >>> regions.channels_of("core"), regions.n_channels
            ((1,), 2)
            >>> LabelScheme({"a": (1,), "b": (2,)}, None, has_regions=False).channels_of("b")
            (2,)
        """
        if self.has_regions:
            return (list(self.foreground).index(name),)
        return tuple(self.label_values.index(value) for value in self.foreground[name])


def label_scheme(dataset_json: dict[str, Any], source: Path) -> LabelScheme:
    """The classes that dataset.json declares.

    Args:
        dataset_json: its content.
        source: where it was read from, for error messages.

    Raises:
        InputError: there is no ``labels`` mapping from names to label values (nnU-Net v1 had it the other way round).
    """
    labels = dataset_json.get("labels") if isinstance(dataset_json, dict) else None
    if not isinstance(labels, dict):
        raise InputError(f"{source}: expected a mapping 'labels' from names to label values, found {labels!r}")
    foreground = {}
    try:
        for name, value in labels.items():
            values = tuple(int(v) for v in value) if isinstance(value, (list, tuple)) else (int(value),)
            if name != "ignore" and set(values) != {0}:
                foreground[name] = values
        ignore = None if labels.get("ignore") is None else int(labels["ignore"])
    except (TypeError, ValueError):
        raise InputError(f"{source}: expected integer label values in 'labels', found {labels!r}") from None
    regions = any(isinstance(value, (list, tuple)) and len(value) > 1 for value in labels.values())
    return LabelScheme(foreground, ignore, regions)


def channel_names(dataset_json: Mapping[str, Any], source: Path) -> list[str]:
    """The names of the channels, in the order of the images.

    Args:
        dataset_json: the content of dataset.json; ``modality`` is what nnU-Net's first version called them.
        source: its path, for messages.

    Raises:
        InputError: there are none, or they are not numbered.

    Example:
        >>> channel_names({"channel_names": {"10": "FLAIR", "2": "T1"}}, Path("dataset.json"))
        ['T1', 'FLAIR']
    """
    key = "channel_names" if "channel_names" in dataset_json else "modality"
    names = dataset_json.get(key)
    if not isinstance(names, dict) or not names or not all(number.isdecimal() for number in names):
        raise InputError(f'{source}: expected {key} to name channels by number, as in {{"0": "T1"}}, found {names!r}')
    return [str(names[number]) for number in sorted(names, key=int)]


@dataclass(frozen=True)
class RawDataset:
    """A dataset folder in nnU-Net's raw layout."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def json(self) -> dict[str, Any]:
        """The content of dataset.json.

        Raises:
            InputError: the file is missing, or what nnU-Net needs is missing in it.
        """
        path = self.folder / "dataset.json"
        content = read_json(path)
        if not isinstance(content, dict):
            raise InputError(f"{path}: expected a mapping, found {type(content).__name__}")
        missing = [key for key in ("labels", "file_ending") if key not in content]
        if "channel_names" not in content and "modality" not in content:
            missing.append("channel_names")
        if missing:
            raise InputError(f"{path}: missing: {', '.join(missing)}")
        return content

    @property
    def file_ending(self) -> str:
        return str(self.json["file_ending"])

    @property
    def channel_names(self) -> list[str]:
        """In the order of the images; see :func:`channel_names`."""
        return channel_names(self.json, self.folder / "dataset.json")

    def training_cases(self) -> list[Case]:
        """The training cases, sorted by name; images may be referenced by dataset.json instead of lying in imagesTr.

        Raises:
            InputError: there are none, or a case lacks its label or an image.
        """
        listed = self.json.get("dataset")
        if listed is not None:
            self._check_listed(listed)
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

    def _check_listed(self, listed: Any) -> None:
        path = self.folder / "dataset.json"
        if not isinstance(listed, dict):
            raise InputError(f"{path}: expected 'dataset' to map case names to files, found {type(listed).__name__}")
        for name, files in listed.items():
            if not (
                isinstance(files, dict)
                and isinstance(files.get("label"), str)
                and isinstance(files.get("images"), list)
                and all(isinstance(image, str) for image in files["images"])
            ):
                raise InputError(f"{path}, case {name}: expected 'images', a list of paths, and 'label', a path")

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
        n_channels = len(self.channel_names)
        if self.json.get("dataset") is None and len(case.images) not in (n_channels, 1):
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


@dataclass(frozen=True)
class Prediction:
    """The files of one predicted case.

    Attributes:
        name: the case.
        image: label map or probability image ``CASE.nii.gz`` (or another image ending), if there is one.
        array: ``CASE.npz`` or ``CASE.npy`` beside it, if there is one.
    """

    name: str
    image: Path | None
    array: Path | None


def label_maps(folder: Path, problems: dict[str, str] | None = None) -> dict[str, Path]:
    """The images of a folder such as labelsTs, by case name (the file name without its image ending), sorted.

    Args:
        folder: the folder.
        problems: is told of every case with two images, by name, of which the first counts; None: they are errors.

    Raises:
        InputError: the folder does not exist.
        InputErrors: cases have two images, and there is nobody to tell.
    """
    if not folder.is_dir():
        raise InputError(f"folder not found: {folder}")
    return _by_case(folder, IMAGE_ENDINGS, problems)


def predictions_by_case(folder: Path, problems: dict[str, str] | None = None) -> dict[str, Prediction]:
    """The predicted cases of a folder that nnUNetv2_predict or another tool wrote, sorted by name.

    Args:
        folder: the folder.
        problems: as for :func:`label_maps`, of images and of arrays.

    Raises:
        InputError: the folder does not exist.
        InputErrors: cases have two images or two arrays, and there is nobody to tell.
    """
    images, arrays = label_maps(folder, problems), _by_case(folder, ARRAY_ENDINGS, problems)
    return {name: Prediction(name, images.get(name), arrays.get(name)) for name in sorted({*images, *arrays})}


def find_dataset_json(prediction_folder: Path, reference_folder: Path) -> Path | None:
    """dataset.json of the prediction folder (nnUNetv2_predict copies it there), of the trainer's result folder when
    the predictions are those of ``fold_X/validation`` in it, of the references or their parent.
    """
    folders = [prediction_folder]
    if fold_of_validation(prediction_folder) is not None:
        folders.append(prediction_folder.absolute().parents[1])
    for folder in (*folders, reference_folder, reference_folder.absolute().parent):
        if (folder / "dataset.json").is_file():
            return folder / "dataset.json"
    return None


def fold_of_validation(folder: Path) -> str | None:
    """The fold (``"0"``, ``"1"``, ... or ``"all"``) whose ``fold_X/validation`` this folder is, None if it is none."""
    folder = folder.absolute()
    match = re.fullmatch(r"fold_(\d+|all)", folder.parent.name)
    return match[1] if match and folder.name == "validation" else None


def validation_folders(results: Path, folds: Sequence[int] | None = None) -> dict[int, Path]:
    """The ``fold_X/validation`` folders of a trainer's result folder, by fold.

    Args:
        results: ``nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION``.
        folds: which; None: those of splits_final.json of the dataset, or else all that lie there.

    Raises:
        InputError: the folder does not exist, there is no fold, or a fold has no validation folder.
    """
    if not results.is_dir():
        raise InputError(f"folder not found: {results}")
    there = sorted(int(p.name[5:]) for p in results.iterdir() if p.is_dir() and re.fullmatch(r"fold_\d+", p.name))
    if not there:
        raise InputError(f"{results}: expected folders fold_0, fold_1, ... as nnUNetv2_train makes them, found none")
    if folds is None:
        splits = splits_of_results(results)
        folds = there if splits is None else range(len(splits))
    found = {fold: results / f"fold_{fold}" / "validation" for fold in folds}
    missing = [str(fold) for fold, path in found.items() if not path.is_dir()]
    if missing:
        complete = [str(fold) for fold in there if (results / f"fold_{fold}" / "validation").is_dir()]
        raise InputError(
            f"{results}: no validation folder for fold {', '.join(missing)}; finish by nnUNetv2_train ... FOLD --val, "
            f"or choose folds by --folds (with one: {', '.join(complete) or 'none'})"
        )
    return found


def results_folder_name(dataset: str, trainer: str, plans: str, configuration: str) -> str:
    """Where nnU-Net puts a trained model, below nnUNet_results.

    Example:
        >>> results_folder_name("Dataset501_Mets", "nnUNetTrainer", "nnUNetPlans", "2d")
        'Dataset501_Mets/nnUNetTrainer__nnUNetPlans__2d'
    """
    return f"{dataset}/{trainer}__{plans}__{configuration}"


def dataset_of_results(results: Path) -> str | None:
    """Name of the dataset below whose folder (``Dataset501_NAME``) a result folder lies; None if below none."""
    names = [p.name for p in (results.absolute(), *results.absolute().parents)]
    return next((name for name in names if re.fullmatch(r"Dataset\d{3}_.+", name)), None)


def reference_segmentations(results: Path) -> Path:
    """``nnUNet_preprocessed/DATASET/gt_segmentations`` of the dataset a result folder belongs to.

    Raises:
        InputError: the dataset's name is not in the path, or there is no such folder.
    """
    name = dataset_of_results(results)
    if name is None:
        raise InputError(f"{results} lies below no folder DatasetXXX_NAME: which references belong to it? give -g")
    folder = nnunet_path("nnUNet_preprocessed") / name / "gt_segmentations"
    if not folder.is_dir():
        raise InputError(f"no reference segmentations of {name}: folder not found: {folder}; give -g")
    return folder


def splits_of_results(results: Path) -> list[tuple[str, ...]] | None:
    """The validation cases of every fold of the dataset a result folder belongs to, from splits_final.json.

    None when the dataset, its preprocessed folder or the file is not known.

    Raises:
        InputError: the file is not what nnU-Net writes.
    """
    root, name = os.environ.get("nnUNet_preprocessed"), dataset_of_results(results)
    if not root or name is None or not (Path(root) / name / "splits_final.json").is_file():
        return None
    return [val for _, val in read_splits(Path(root) / name / "splits_final.json")]


def read_splits(path: Path) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The training and the validation cases of every fold, from splits_final.json.

    Raises:
        InputError: the file is missing or is not what nnU-Net writes.
    """
    splits = read_json(path, [{"train": [str], "val": [str]}])
    return [(tuple(split["train"]), tuple(split["val"])) for split in splits]


def _by_case(folder: Path, endings: tuple[str, ...], problems: dict[str, str] | None) -> dict[str, Path]:
    found: dict[str, Path] = {}
    twice: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        ending = next((e for e in endings if path.name.lower().endswith(e)), None)
        if ending is None or path.name.startswith(".") or not path.is_file():
            continue
        name = path.name[: -len(ending)]
        if name in found:
            twice.setdefault(name, f"case {name} has two files in {folder}: {found[name].name} and {path.name}")
        else:
            found[name] = path
    if problems is not None:
        for name, problem in twice.items():
            problems[name] = f"{problems[name]}; {problem}" if name in problems else problem
    elif twice:
        raise InputErrors(list(twice.values()))
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


def plans_in(folder: Path) -> dict[str, dict[str, Any]]:
    """The plans in a preprocessed folder: content by file name, sorted."""
    found = {path.name: read_json(path) for path in sorted(folder.glob("*.json"))}
    return {name: c for name, c in found.items() if isinstance(c, dict) and {"plans_name", "configurations"} <= set(c)}


def preprocessed_cases(folder: Path) -> list[str]:
    """The cases in a folder of preprocessed data, sorted, as nnU-Net lists them.

    Source: ``nnUNetDatasetBlosc2.get_identifiers`` of nnU-Net 2.8.1: every ``.b2nd`` but ``_seg.b2nd`` is a case.
    """
    names = (path.name for path in folder.glob("*.b2nd") if not path.name.endswith("_seg.b2nd"))
    return sorted(name.removesuffix(".b2nd") for name in names)


def add_to_plans(
    plans_file: Path, plans: dict[str, Any], name: str, configuration: dict[str, Any], *, overwrite: bool = False
) -> None:
    """Write plans with one configuration more.

    Args:
        plans_file: where they lie.
        plans: what was read from there; the configuration is added.
        name: of the configuration.
        configuration: its content.
        overwrite: replace another configuration of this name; the same one is no matter.

    Raises:
        InputError: the plans hold another configuration of this name.
    """
    if plans["configurations"].get(name) not in (None, configuration) and not overwrite:
        raise InputError(f"{plans_file}: holds another {name} configuration already; --overwrite replaces it")
    plans["configurations"][name] = configuration
    write_json(plans_file, plans)


def read_json(path: Path, shape: Any = None) -> Any:
    """Content of a JSON file, with or without a byte order mark.

    Args:
        path: the file.
        shape: what is expected, see :func:`check_shape`; None: anything.

    Raises:
        InputError: the file is missing, is not JSON (NaN and numbers beyond the range of floats are none) or has
            another shape.
    """
    try:
        content = json.loads(path.read_bytes(), parse_float=_finite, parse_constant=_finite)
    except FileNotFoundError:
        raise InputError(f"file not found: {path}") from None
    except RecursionError:
        raise InputError(f"{path}: not valid JSON: nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
    if shape is not None:
        check_shape(content, shape, path)
    return content


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"expected finite numbers, found {text[:20]}")
    return value


_TYPE_NAMES: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    type(None): "null",
    dict: "a mapping",
    list: "a list",
}


def check_shape(value: Any, shape: Any, path: Path, key: str = "") -> None:
    """Check what was read from a JSON file, as far as its user needs it.

    Args:
        value: what was read.
        shape: a type, or a tuple of types; ``{"a": shape, ...}`` for a mapping with these keys, and maybe others;
            ``{str: shape}`` for a mapping with any keys; ``[shape]`` for a list. A whole number is a number, true is
            none.
        path: the file, for messages.
        key: where in the file ``value`` stands, for messages.

    Raises:
        InputError: something is missing or of another type: file, key, what was expected and what was found.

    Example:
        >>> check_shape({"folds": [0, "1"]}, {"folds": [int]}, Path("a.json"))
        Traceback (most recent call last):
        ...
        nnunet_lopsided.errors.InputError: a.json: folds[1]: expected a whole number, found "1"
    """
    where = f"{path}: {key}" if key else str(path)
    if isinstance(shape, dict):
        check_shape(value, dict, path, key)
        for name in value if str in shape else shape:
            if name not in value:
                raise InputError(f"{where}: expected the key {name}, found {', '.join(value)[:100] or 'none'}")
            check_shape(value[name], shape.get(str) or shape[name], path, f"{key}.{name}" if key else name)
    elif isinstance(shape, list):
        check_shape(value, list, path, key)
        for i, item in enumerate(value):
            check_shape(item, shape[0], path, f"{key}[{i}]")
    else:
        kinds = shape if isinstance(shape, tuple) else (shape,)
        if type(value) not in kinds and not (type(value) is int and float in kinds):
            shown = _TYPE_NAMES[type(value)] if isinstance(value, (dict, list)) else json.dumps(value)[:100]
            raise InputError(f"{where}: expected {' or '.join(_TYPE_NAMES[kind] for kind in kinds)}, found {shown}")


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that ``path`` is never seen half-written."""
    unfinished = path.with_name(f".unfinished-{path.name}")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    unfinished.replace(path)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, by which a change is noticed; read in pieces, as checkpoints are large."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 24):
            digest.update(chunk)
    return digest.hexdigest()


def restricted_splits(splits: Any, cases: set[str]) -> list[dict[str, list[str]]]:
    """The folds of ``splits_final.json`` with these cases only.

    Raises:
        InputError: it is not a list of folds, each with ``train`` and ``val``.

    Example:
        >>> restricted_splits([{"train": ["a", "b"], "val": ["c"]}], {"a", "c"})
        [{'train': ['a'], 'val': ['c']}]
    """
    try:
        return [{part: [case for case in fold[part] if case in cases] for part in ("train", "val")} for fold in splits]
    except (TypeError, KeyError):
        raise InputError("splits_final.json: expected a list of folds, each with 'train' and 'val'") from None


def new_dataset_name(dataset_id: int, name: str) -> str:
    """The folder name ``DatasetXXX_NAME``.

    Raises:
        InputError: nnU-Net would not accept the id or the name.
    """
    if not 1 <= dataset_id <= 999:
        raise InputError(f"dataset id must be within 1 to 999, got {dataset_id}")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise InputError(f"dataset name must consist of letters, digits, '_', '-' and '.', got {name!r}")
    return f"Dataset{dataset_id:03d}_{name}"


def plain_name(text: str) -> str:
    """A dataset name made from any text: what :func:`new_dataset_name` does not accept becomes ``_``.

    Example:
        >>> plain_name("mé ta")
        'm__ta'
    """
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)


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
    with _new_folder(final, marker, lambda: _refuse_existing(dataset_id, final, overwrite)) as folder:
        yield folder


@contextmanager
def new_preprocessed_dataset(name: str, marker: str, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder to build preprocessed data in; it becomes ``nnUNet_preprocessed/NAME`` when the block ends.

    As :func:`new_raw_dataset`, for the preprocessed folder of a dataset that exists below nnUNet_raw.

    Raises:
        InputError: the folder exists and may not be replaced, or another process is writing it.
    """
    with new_folder(nnunet_path("nnUNet_preprocessed") / name, marker, overwrite) as folder:
        yield folder


@contextmanager
def new_folder(final: Path, marker: str, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder to write into; it becomes ``final`` when the block ends. As :func:`new_raw_dataset`.

    Args:
        final: in an existing folder.
        marker: name of a file every folder of this kind holds; only a folder with this file is ever replaced.
        overwrite: replace ``final`` where it exists.

    Raises:
        InputError: the folder exists and may not be replaced, or another process is writing it.
    """

    def refuse() -> None:
        if final.exists() and not overwrite:
            raise InputError(f"{final} exists; --overwrite replaces it if this command made it")

    with _new_folder(final, marker, refuse) as folder:
        yield folder


@contextmanager
def _new_folder(final: Path, marker: str, refuse: Callable[[], None]) -> Iterator[Path]:
    root = final.parent
    unfinished, replaced = root / f".unfinished-{final.name}", root / f".replaced-{final.name}"
    if replaced.is_dir() and not final.exists():  # killed between the two renames below
        replaced.rename(final)
    refuse()
    if final.exists() and not (final / marker).is_file():
        raise InputError(f"{final} is not replaced: it holds no {marker}, so it was not made by this command")

    unfinished.mkdir(exist_ok=True)
    with locked(unfinished):
        try:
            shutil.rmtree(replaced, ignore_errors=True)
            for left_over in unfinished.iterdir():
                shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
            yield unfinished
            refuse()
            if final.exists():
                final.rename(replaced)
            unfinished.rename(final)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        shutil.rmtree(replaced, ignore_errors=True)


def _refuse_existing(dataset_id: int, final: Path, overwrite: bool) -> None:
    for variable in PATH_VARIABLES:
        for name in names_of_dataset(dataset_id, (variable,)):
            if overwrite and name == final.name:
                continue
            hint = "; --overwrite replaces it" if not overwrite and final.is_dir() and name == final.name else ""
            raise InputError(f"dataset id {dataset_id} is in use: {Path(os.environ[variable]) / name}{hint}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an advisory lock on a folder, where the system has such locks; a killed process gives it back.

    Raises:
        InputError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is writing {folder}") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)
