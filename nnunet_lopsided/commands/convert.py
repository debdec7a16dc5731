"""``lopsided-convert``: public releases, any folder, or several datasets, as one raw nnU-Net dataset."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_lopsided.commands._cli import Parser, run
from nnunet_lopsided.commands._options import add_name, add_new_dataset, add_np, add_overwrite, add_seed
from nnunet_lopsided.commands.convert_folder import (
    add_dicom_arguments,
    add_folder_arguments,
    dicom_options,
    folder_options,
)
from nnunet_lopsided.dataset_conversion.converters import CONVERTERS

if TYPE_CHECKING:
    from nnunet_lopsided.dataset_conversion.converters.options import Converted, Options


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run(_parser(), _convert, argv)


def _parser() -> Parser:
    parser = Parser(
        prog="lopsided-convert",
        description="Write a release as a raw dataset of nnU-Net: every case checked, files linked, patients kept "
        "together in splits_final.json. The source is never written to.",
    )
    converters = parser.add_subparsers(dest="converter", required=True, metavar="NAME")
    for name, info in CONVERTERS.items():
        # Yale's set has the files of BraTS-METS under names of the same form.
        aliases = ["yale-pretreat"] if name == "brats-mets" else []
        sub = converters.add_parser(name, help=info.summary, description=f"Expected: {info.expected}", aliases=aliases)
        # Else the alias would stand there, which is no converter.
        sub.set_defaults(converter=name)
        sub.add_argument("source", type=Path, metavar="SRC", help="any folder above the files")
        _add_common(sub, info.dataset_name)
        _OWN_ARGUMENTS[name](sub)
        if name != "luna16":  # it writes several datasets
            sub.add_argument("--dry-run", action="store_true", help="check everything, list the cases, write nothing")
    sub = converters.add_parser("merge", help="datasets that each lack the other's disease, as one")
    sub.add_argument("datasets", nargs="+", metavar="DATASET", help="ids or folder names below nnUNet_raw")
    _add_common(sub, "Merged")
    sub.add_argument(
        "--same", nargs="+", default=[], type=_pair, metavar="CHANNEL=OTHER", help="names of one channel: t1c=T1post"
    )
    sub.add_argument(
        "--classes",
        nargs="+",
        default=[],
        type=_class_name,
        metavar="DATASET:OLD=NEW",
        help="what a dataset's class is in the union: 501:lesion=metastasis",
    )
    sub.add_argument(
        "--prefix", action="store_true", help="put the dataset's name before the names of its cases and patients"
    )
    return parser


def _add_common(parser: argparse.ArgumentParser, name_default: str) -> None:
    add_new_dataset(parser)
    add_name(parser, "", name_default)
    parser.add_argument("--copy", action="store_true", help="copy files instead of linking to them")
    parser.add_argument(
        "--missing-channel",
        choices=("error", "skip"),
        default="error",
        help="a case that lacks a channel is refused, or left out (default: %(default)s)",
    )
    parser.add_argument(
        "--fix-geometry",
        choices=("label",),
        help="a label of the images' shape takes their spacing, origin and direction where it differs",
    )
    parser.add_argument(
        "--reorient",
        nargs="?",
        const="first",
        type=_orientation,
        metavar="ORIENTATION",
        help="exchange and flip axes so that all images of a case have the orientation of its first channel, or one "
        "such as RAS in all cases; exact, nothing is interpolated",
    )
    parser.add_argument(
        "--resample-channels",
        action="store_true",
        help="interpolate channels that lie on another grid onto the label's; labels are never resampled",
    )
    parser.add_argument(
        "--fix-label",
        nargs="+",
        default=[],
        type=_label_fix,
        metavar="CASE:VALUE=NEW",
        help="read a wrong label value of one case as another",
    )
    parser.add_argument("--exclude", nargs="+", default=[], metavar="CASE", help="cases to leave out")
    test = parser.add_mutually_exclusive_group()
    test.add_argument(
        "--test-cases",
        nargs="+",
        default=[],
        metavar="CASE",
        help="cases or patients for imagesTs and labelsTs, or one .txt file with a name per line; all cases of these "
        "patients become test cases",
    )
    test.add_argument(
        "--test-fraction",
        type=float,
        metavar="F",
        help="share of the patients for imagesTs and labelsTs, in the strata of no, 1-3, 4-10 and more lesions",
    )
    add_seed(parser, "--test-fraction and the folds")
    add_overwrite(parser, "an earlier conversion of the same id and name")
    add_np(parser)


def _add_channels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--channels", nargs="+", metavar="NAME", help="those wanted, in this order (default: see docs)")


def _add_target(parser: argparse.ArgumentParser, default: str | None, text: str) -> None:
    parser.add_argument("--target", choices=("ET", "TC", "WT"), default=default, help=text)


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--split",
        choices=("paper", "all"),
        help="the split of Shirokikh et al. 2020, or every scan a training case (default: paper, and all with "
        "--test-cases or --test-fraction)",
    )
    parser.add_argument(
        "--paper-images", action="store_true", help="clip, and crop or mask, the images as that paper did (see docs)"
    )


def _brats_mets(parser: argparse.ArgumentParser) -> None:
    _add_channels(parser)
    _add_target(parser, "TC", "what is lesion: 3, 1+3 or 1+2+3 (default: %(default)s)")


def _ucsf_bmsr(parser: argparse.ArgumentParser) -> None:
    _add_channels(parser)
    _add_target(parser, None, "take the lesion from BraTS-seg (default: all of seg)")


def _lits(parser: argparse.ArgumentParser) -> None:
    _add_split(parser)


def _luna16(parser: argparse.ArgumentParser) -> None:
    _add_split(parser)
    parser.add_argument(
        "--consensus", type=int, choices=(1, 2, 3, 4), default=3, help="readers that must agree (default: %(default)s)"
    )
    parser.add_argument(
        "--reader-variants",
        action="store_true",
        help="also write a variant per reader slot, under the four ids after -d",
    )
    parser.add_argument("--lidc-xml", type=Path, metavar="FOLDER", help="where the XML files are (default: SRC)")


_OWN_ARGUMENTS = {
    "brainmetshare": _add_channels,
    "brats-mets": _brats_mets,
    "ucsf-bmsr": _ucsf_bmsr,
    "nyumets": _add_channels,
    "ljubljana-ms": _add_channels,
    "lits": _lits,
    "luna16": _luna16,
    "folder": add_folder_arguments,
    "dicom": add_dicom_arguments,
}


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r} (is a * not quoted?)")
    return name, value


def _orientation(text: str) -> str:
    if text != "first" and not re.fullmatch("[LRAPSI]{3}", text):
        raise argparse.ArgumentTypeError(
            f"expected first or three letters such as RAS, got {text!r} (put SRC before --reorient)"
        )
    return text


def _label_fix(text: str) -> tuple[str, int, int]:
    # Greedy up to the last colon, as a case's name may hold one.
    match = re.fullmatch(r"(.+):(-?[0-9]+)=([0-9]+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected CASE:VALUE=NEW, got {text!r}")
    return match[1], int(match[2]), int(match[3])


def _class_name(text: str) -> tuple[str, str, str]:
    match = re.fullmatch(r"([^:=]+):([^:=]+)=([^:=]+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected DATASET:OLD=NEW, got {text!r}")
    return match[1], match[2], match[3]


def _convert(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.dataset_conversion.converters import convert
    from nnunet_lopsided.dataset_conversion.converters.merge import merge
    from nnunet_lopsided.nnunet.paths import names_of_dataset

    if arguments.converter == "merge":
        # On the command line as an assignment reads, t1c=T1post; merge() asks what a name is renamed to.
        same = {other: channel for channel, other in arguments.same}
        classes = {(dataset, old): new for dataset, old, new in arguments.classes}
        converted = merge(
            arguments.datasets,
            _options(arguments, "Merged"),
            same_channels=same,
            class_names=classes,
            prefix=arguments.prefix,
        )
    else:
        converted = convert(
            arguments.converter, arguments.source, _options(arguments, arguments.name), **_find_options(arguments)
        )
    dry_run = getattr(arguments, "dry_run", False)
    _say(converted, dry_run)
    if not dry_run and names_of_dataset(arguments.d, ("nnUNet_preprocessed", "nnUNet_results")):
        print(
            f"note: {converted.folder.name} was preprocessed or trained before, from what it held then", file=sys.stderr
        )
    return 0


def _options(arguments: argparse.Namespace, name: str) -> Options:
    from nnunet_lopsided.dataset_conversion.converters.options import Options

    fixes: dict[str, dict[int, int]] = {}
    for case, value, meant in arguments.fix_label:
        fixes.setdefault(case, {})[value] = meant
    return Options(
        dataset_id=arguments.d,
        name=arguments.name or name,
        copy=arguments.copy,
        missing_channel=arguments.missing_channel,
        fix_geometry=arguments.fix_geometry is not None,
        reorient=arguments.reorient,
        resample_channels=arguments.resample_channels,
        label_fixes=fixes,
        exclude=frozenset(arguments.exclude),
        test_cases=frozenset(_names(arguments.test_cases)),
        test_fraction=arguments.test_fraction,
        seed=arguments.seed,
        overwrite=arguments.overwrite,
        dry_run=getattr(arguments, "dry_run", False),
        n_workers=arguments.np,
    )


def _names(given: list[str]) -> list[str]:
    """The names given, or those of a single .txt file."""
    from nnunet_lopsided.files.regular import read_text

    if len(given) != 1 or not given[0].endswith(".txt"):
        return given
    return [line.strip() for line in read_text(Path(given[0])).splitlines() if line.strip()]


def _find_options(arguments: argparse.Namespace) -> dict[str, object]:
    """What the converter's ``find`` takes besides the source."""
    if arguments.converter == "folder":
        return folder_options(arguments)
    if arguments.converter == "dicom":
        return dicom_options(arguments)
    # Named here and not passed on as a whole: find() would refuse options of other converters.
    own = {
        "brats-mets": ("channels", "target"),
        "ucsf-bmsr": ("channels", "target"),
        "lits": ("split", "paper_images"),
        "luna16": ("split", "paper_images", "consensus", "reader_variants", "lidc_xml"),
    }.get(arguments.converter, ("channels",))
    options = {name: getattr(arguments, name) for name in own}
    if "split" in options:
        # The paper's split has test cases of its own, which a choice of the user's would contradict.
        held_out = arguments.test_cases or arguments.test_fraction is not None
        options["split"] = arguments.split or ("all" if held_out else "paper")
    return options


def _say(converted: Converted, dry_run: bool) -> None:
    for note in converted.notes:
        print(f"note: {note}", file=sys.stderr)
    test = f", {converted.n_test} test cases" if converted.n_test else ""
    counts = f"{converted.n_train} training cases{test}, {converted.n_lesions} lesions"
    if not dry_run:
        print(f"{converted.folder}: {counts}")
        return
    rows = [("case", "patient", "time point", "split", "lesions", "changes")]
    for case in converted.cases:
        changes = "; ".join(f"{image}: {words}" for image, words in case.changes.items())
        n_lesions = "" if case.n_lesions is None else str(case.n_lesions)
        rows.append((case.name, case.patient, case.time_point, case.split, n_lesions, changes))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    patients = len({case.patient for case in converted.cases})
    print(f"{converted.folder} would hold {counts}, of {patients} patients; nothing was written")


if __name__ == "__main__":
    sys.exit(main())
