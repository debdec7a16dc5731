"""``lopsided-convert``: public releases, any folder, or several datasets, as one raw nnU-Net dataset."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_lopsided.commands._cli import Parser, run
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
        aliases = ["yale-pretreat"] if name == "brats-mets" else []
        sub = converters.add_parser(name, help=info.summary, description=f"Expected: {info.expected}", aliases=aliases)
        sub.set_defaults(converter=name)
        sub.add_argument("source", type=Path, metavar="SRC", help="any folder above the files")
        _add_common(sub, f"(default: {info.dataset_name})")
        _OWN_ARGUMENTS[name](sub)
    sub = converters.add_parser("merge", help="datasets that each lack the other's disease, as one")
    sub.add_argument("datasets", nargs="+", metavar="DATASET", help="ids or folder names below nnUNet_raw")
    _add_common(sub, "(default: Merged)")
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
    parser.add_argument("-d", required=True, type=int, metavar="ID", help="id of the new dataset, 1 to 999, not in use")
    parser.add_argument("--name", default="", help=f"folder name after DatasetXXX_ {name_default}")
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
    parser.add_argument("--seed", type=int, default=0, help="of --test-fraction and the folds (default: 0)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an earlier conversion of the same id and name"
    )
    parser.add_argument("-np", type=int, default=2, metavar="N", help="cases worked on at the same time (default: 2)")


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


def _folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--channels", nargs="+", required=True, type=_pair, metavar="NAME=PATTERN", help="such as flair=*_flair.nii.gz"
    )
    parser.add_argument("--label", required=True, metavar="PATTERN", help="such as *_seg.nii.gz; quote the *")
    parser.add_argument(
        "--lesion-values",
        nargs="+",
        default=["1"],
        metavar="VALUE",
        help="label values that are lesion, or any (default: 1)",
    )
    parser.add_argument("--other-values", nargs="+", type=int, default=[], metavar="VALUE", help="known, no lesion")
    parser.add_argument(
        "--patients-regex",
        metavar="REGEX",
        help="its first group in a case's name is the patient, its second the time point (default: the case)",
    )


_OWN_ARGUMENTS = {
    "brainmetshare": _add_channels,
    "brats-mets": _brats_mets,
    "ucsf-bmsr": _ucsf_bmsr,
    "nyumets": _add_channels,
    "ljubljana-ms": _add_channels,
    "lits": _lits,
    "luna16": _luna16,
    "folder": _folder,
}


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r} (is a * not quoted?)")
    return name, value


def _label_fix(text: str) -> tuple[str, int, int]:
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
    _say(converted)
    if names_of_dataset(arguments.d, ("nnUNet_preprocessed", "nnUNet_results")):
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
        label_fixes=fixes,
        exclude=frozenset(arguments.exclude),
        test_cases=frozenset(_names(arguments.test_cases)),
        test_fraction=arguments.test_fraction,
        seed=arguments.seed,
        overwrite=arguments.overwrite,
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
    own = {
        "brats-mets": ("channels", "target"),
        "ucsf-bmsr": ("channels", "target"),
        "lits": ("split", "paper_images"),
        "luna16": ("split", "paper_images", "consensus", "reader_variants", "lidc_xml"),
        "folder": ("channels", "label", "lesion_values", "other_values", "patients_regex"),
    }.get(arguments.converter, ("channels",))
    options = {name: getattr(arguments, name) for name in own}
    if "split" in options:
        held_out = arguments.test_cases or arguments.test_fraction is not None
        options["split"] = arguments.split or ("all" if held_out else "paper")
    if arguments.converter == "folder":
        options["channels"] = _without_repeats(arguments.channels)
        options["lesion_values"] = _values(arguments.lesion_values)
    return options


def _without_repeats(pairs: list[tuple[str, str]]) -> dict[str, str]:
    from nnunet_lopsided.errors import InputError

    if len(dict(pairs)) < len(pairs):
        raise InputError(f"channels must differ, got {', '.join(name for name, _ in pairs)}")
    return dict(pairs)


def _values(given: list[str]) -> list[int] | None:
    from nnunet_lopsided.errors import InputError

    if given == ["any"]:
        return None
    if not all(re.fullmatch("[0-9]{1,9}", value) and int(value) for value in given):
        raise InputError(f"--lesion-values must be positive whole numbers, or any, got {' '.join(given)}")
    return [int(value) for value in given]


def _say(converted: Converted) -> None:
    for note in converted.notes:
        print(f"note: {note}", file=sys.stderr)
    test = f", {converted.n_test} test cases" if converted.n_test else ""
    print(f"{converted.folder}: {converted.n_train} training cases{test}, {converted.n_lesions} lesions")


if __name__ == "__main__":
    sys.exit(main())
