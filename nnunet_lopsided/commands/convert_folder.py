"""The options of ``lopsided-convert folder`` and ``dicom``, and what their ``find`` is given."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from nnunet_lopsided.commands._cli import not_shown
from nnunet_lopsided.commands._options import add_patients_regex
from nnunet_lopsided.errors import InputError


def add_folder_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this converter has."""
    parser.add_argument(
        "--channels",
        nargs="+",
        required=True,
        metavar="NAME=PATTERN",
        help="such as flair='*_flair.nii.gz'; with --bids a suffix such as t1c=ce-gd_T1w, or T1w for T1w=T1w",
    )
    _add_labels(
        parser,
        None,
        "files with the labels, such as '*_seg.nii.gz'; quote the *; with --bids such as label-lesion_mask",
    )
    parser.add_argument(
        "--bids",
        action="store_true",
        help="SRC is laid out as BIDS says: subjects are patients, sessions their time points, masks in derivatives",
    )
    parser.add_argument(
        "--ignore",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="folders and files not to look at, such as derivatives or 'old_*'",
    )
    parser.add_argument(
        "--lesion-values",
        nargs="+",
        default=["1"],
        metavar="VALUE",
        help="label values that are lesion, or any (default: 1)",
    )
    parser.add_argument("--other-values", nargs="+", type=int, default=[], metavar="VALUE", help="known, no lesion")
    patients = parser.add_mutually_exclusive_group()
    add_patients_regex(
        patients, "the case; names that look like sessions of a patient are asked for", ", its second the time point"
    )
    patients.add_argument(
        "--patients", type=Path, metavar="CSV", help="a table with the columns case, patient and perhaps time_point"
    )


def _add_labels(parser: argparse.ArgumentParser, default: str | None, text: str) -> None:
    """Which files hold the labels. ``--label`` is what it was called before: elsewhere that is a class."""
    action = parser.add_argument(
        "--labels", "--label", dest="label", required=default is None, default=default, metavar="PATTERN", help=text
    )
    not_shown(action, "--label")


def folder_options(arguments: argparse.Namespace) -> dict[str, object]:
    """What ``find`` takes besides the source.

    Raises:
        InputError: a channel is there twice or has no pattern, or values are no integers.
    """
    if arguments.bids and (arguments.patients_regex is not None or arguments.patients is not None):
        raise InputError("--bids tells patients by their names; --patients and --patients-regex are for other folders")
    return {
        "channels": _channels(arguments.channels, arguments.bids),
        "label": arguments.label,
        "lesion_values": _values(arguments.lesion_values),
        "other_values": arguments.other_values,
        "patients_regex": arguments.patients_regex,
        "patients": arguments.patients,
        "ignore": arguments.ignore,
        "bids": arguments.bids,
    }


def add_dicom_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only ``dicom`` has."""
    parser.add_argument(
        "--channels",
        nargs="+",
        required=True,
        metavar="NAME=PATTERN",
        help="by the description or the number of the series, such as t1c='*t1*post*' flair=5; upper and lower case "
        "are the same",
    )
    _add_labels(parser, "*", "description or number of the DICOM SEG with the labels (default: the only one)")
    parser.add_argument(
        "--segments",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="labels of the segments that are lesion (default: all)",
    )
    parser.add_argument(
        "--ignore",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="descriptions, numbers or UIDs of series not to look at",
    )


def dicom_options(arguments: argparse.Namespace) -> dict[str, object]:
    """What ``find`` of ``dicom`` takes besides the source.

    Raises:
        InputError: a channel is there twice or has no pattern.
    """
    return {
        "channels": _channels(arguments.channels, bids=False),
        "label": arguments.label,
        "segments": arguments.segments,
        "ignore": arguments.ignore,
    }


def _channels(given: list[str], bids: bool) -> dict[str, str]:
    pairs = []
    for text in given:
        name, equals, pattern = text.partition("=")
        if bids and not equals:
            name, pattern = text, text
        if not (name and pattern):
            raise InputError(f"--channels: expected NAME=VALUE, got {text!r} (is a * not quoted?)")
        pairs.append((name, pattern))
    if len(dict(pairs)) < len(pairs):
        raise InputError(f"channels must differ, got {', '.join(name for name, _ in pairs)}")
    return dict(pairs)


def _values(given: list[str]) -> list[int] | None:
    if given == ["any"]:
        return None
    if not all(re.fullmatch("[0-9]{1,9}", value) and int(value) for value in given):
        raise InputError(f"--lesion-values must be positive whole numbers, or any, got {' '.join(given)}")
    return [int(value) for value in given]
