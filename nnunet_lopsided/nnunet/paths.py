"""nnU-Net's path variables, names of datasets, and the endings of its files."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from nnunet_lopsided.errors import InputError

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
    path = path_if_set(variable)
    if path is None:
        raise InputError(f"{variable} is not set: export {variable}=/path/to/{variable}")
    if not path.is_dir():
        raise InputError(f"{variable} is set to {path}, which is not a folder")
    return path


def path_if_set(variable: str) -> Path | None:
    """The folder an nnU-Net path variable names, which need not exist: nnU-Net makes it when it first writes there.

    Args:
        variable: as of :func:`nnunet_path`.

    Returns:
        None where the variable is not set, or empty.

    Raises:
        InputError: it names something that is there and is no folder, or a folder that is not there and whose name
            begins or ends with white space, as after a slip in a shell's start-up file. Nothing would be found there.
    """
    value = os.environ.get(variable)
    if not value:
        return None
    if not Path(value).is_dir() and (os.path.lexists(value) or value != value.strip()):
        shown = value if value == value.strip() else f"{value!a} (mind the white space)"
        raise InputError(f"{variable} is set to {shown}, which is not a folder")
    return Path(value)


def names_of_dataset(dataset: int | str, variables: tuple[str, ...] = PATH_VARIABLES) -> list[str]:
    """Names of the folders that carry this dataset id (or name) below the set nnU-Net paths, sorted.

    nnU-Net refuses to work when two different names carry one id anywhere below its three paths.

    Raises:
        InputError: a variable that is set names no folder, see :func:`path_if_set`: what lies there cannot be told.
    """
    number = dataset_id(dataset)
    pattern = re.compile(re.escape(str(dataset)) if number is None else rf"Dataset{number:03d}_.+")
    names = set()
    for variable in variables:
        root = path_if_set(variable)
        if root is not None and root.is_dir():
            names |= {p.name for p in root.iterdir() if p.is_dir() and pattern.fullmatch(p.name)}
    return sorted(names)


def dataset_id(dataset: int | str) -> int | None:
    """The id that was given for a dataset, or None where its folder name was.

    Example:
        >>> dataset_id(501), dataset_id("007"), dataset_id("Dataset501_Mets"), dataset_id("²")
        (501, 7, None, None)
    """
    text = str(dataset)
    # "²" is a digit to Python, but no number; more digits than nnU-Net's three are a name that no folder has.
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def check_case_name(name: str, source: Path | str, file_ending: str = "") -> None:
    """Refuse a case name that is not a plain file name: files are written under it, in folders of our choosing.

    Args:
        name: as it was read from a file or stands in the name of one.
        source: where it was read, for the message.
        file_ending: the dataset's, if it is known; ``CASE.nii.gz`` names a file, not a case.

    Raises:
        InputError: the name is empty, is a path, begins with a dot, ends in the file ending, or holds control
            characters or what is not UTF-8.

    Example:
        >>> check_case_name("case_01", "splits_final.json", ".nii.gz")
        >>> check_case_name("../labelsTr/a", Path("dataset.json"))
        Traceback (most recent call last):
        ...
        nnunet_lopsided.errors.InputError: dataset.json: a case name must be a plain file name, got '../labelsTr/a': \
it holds a path separator
    """
    problem = _problem_of_case_name(name, file_ending)
    if problem:
        raise InputError(f"{source}: a case name must be a plain file name, got {name!a}: {problem}")


def _problem_of_case_name(name: str, file_ending: str) -> str:
    if not name.strip():
        return "it is empty"
    if "/" in name or "\\" in name:
        return "it holds a path separator"
    if name.startswith("."):
        return "it begins with a dot, as hidden files do"
    categories = {unicodedata.category(character) for character in name}
    if "Cs" in categories:
        return "it is not UTF-8; rename the file"
    if categories & {"Cc", "Zl", "Zp"}:
        return "it holds control characters"
    if file_ending and name.lower().endswith(file_ending.lower()):
        return f"it ends in the file ending {file_ending}"
    return ""


def check_no_twins(names: Iterable[str], source: Path | str) -> None:
    """Refuse cases whose files would be one file on another file system: a copy of the dataset would lose one of them.

    macOS and Windows do not tell ``A`` from ``a``; macOS does not tell the two spellings of an accent in Unicode.

    Args:
        names: of cases whose files lie in one folder; a name may be there several times.
        source: where they were read, for the message.

    Raises:
        InputError: two names differ in nothing else, or in white space at an end, which nobody sees; both are named.

    Example:
        >>> check_no_twins(["a", "b", "a"], "imagesTr")
        >>> check_no_twins(["a", "A"], "imagesTr")
        Traceback (most recent call last):
        ...
        nnunet_lopsided.errors.InputError: imagesTr: the cases 'a' and 'A' differ only in upper and lower case, which \
other file systems, or their readers, do not tell apart; rename one of them
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(_elsewhere(name), name)
        if other != name:
            raise InputError(
                f"{source}: the cases {other!a} and {name!a} differ only in {_unlike(other, name)}, which other file "
                "systems, or their readers, do not tell apart; rename one of them"
            )


def nearly(name: str, others: Iterable[str]) -> str:
    """For the message that a case is missing: one of the others that looks the same; empty if there is none.

    Example:
        >>> nearly("Anna", ["anna", "Bert"])
        "; found 'anna', which differs only in upper and lower case: rename one of them"
        >>> nearly("Anna", ["Bert"])
        ''
    """
    twin = next((other for other in others if other != name and _elsewhere(other) == _elsewhere(name)), None)
    return "" if twin is None else f"; found {twin!a}, which differs only in {_unlike(name, twin)}: rename one of them"


def _elsewhere(name: str) -> str:
    """What is left of a name where neither case nor the spelling of accents nor white space at its ends counts."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def _unlike(one: str, other: str) -> str:
    if unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other):
        return "how Unicode spells an accent"
    return "white space at an end" if one.strip() == other.strip() else "upper and lower case"


def is_litter(file_name: str) -> bool:
    """Whether a hidden file is no case: what macOS keeps beside a file (``._NAME``), or what a killed run left.

    Other hidden files that look like cases are refused by :func:`check_case_name`, as nnU-Net takes them for cases.

    Example:
        >>> [is_litter(name) for name in ("._a_0000.nii.gz", ".unfinished-a.nii.gz", ".a_0000.nii.gz", "a.nii.gz")]
        [True, True, False, False]
    """
    return file_name.startswith(("._", ".unfinished-"))


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
