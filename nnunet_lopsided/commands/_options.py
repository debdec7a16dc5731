"""Options that several commands have: one spelling, one meaning and one definition each.

``-d`` is the dataset that a command works on, by id or name; of a command that makes a dataset from files, the id that
it gets. ``-o`` is what a command makes: a folder, or a variant by its id.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

from nnunet_lopsided.commands._cli import not_shown

# A parser, or a group of its options.
Options: TypeAlias = argparse._ActionsContainer

PLANS, TRAINER = "nnUNetPlans", "nnUNetTrainerLopsided"


def add_dataset(options: Options, which: str) -> None:
    """``-d``, an existing dataset; ``which`` goes on from "id or name of the dataset"."""
    options.add_argument("-d", required=True, metavar="DATASET", help=f"id or name of the dataset {which}")


def add_new_dataset(options: Options) -> None:
    """``-d`` of a command that makes a dataset from files."""
    text = "id of the new dataset, 1 to 999, not in use"
    options.add_argument("-d", required=True, type=int, metavar="ID", help=text)


def add_variant(options: Options, required: bool = True) -> None:
    """``-o`` of a command that makes another dataset of one."""
    options.add_argument(
        "-o", required=required, type=int, metavar="ID", help="id of the variant, 1 to 999, not in use"
    )


def add_output(options: Options, what: str, default: str = "", required: bool = False) -> None:
    """``-o`` of a command that writes a folder, or ``--output``.

    Args:
        options: to which it is added.
        what: goes on from "where".
        default: where it is otherwise, in words; empty: nothing is said.
        required: whether it must be given.
    """
    text = f"where {what}{f' (default: {default})' if default else ''}"
    action = options.add_argument("-o", "--output", required=required, type=Path, metavar="FOLDER", help=text)
    not_shown(action, "--output")


def add_configuration(options: Options) -> None:
    """``-c``."""
    options.add_argument(
        "-c", required=True, metavar="CONFIGURATION", help="configuration, such as 2d, 3d_fullres or 2.5d"
    )


def add_plans(options: Options) -> None:
    """``-p``."""
    options.add_argument("-p", default=PLANS, metavar="PLANS", help=f"plans identifier (default: {PLANS})")


def add_trainer(options: Options, default: str = TRAINER, does: str = "") -> None:
    """``-tr``; ``does`` goes on from "trainer"."""
    text = f"trainer{f' {does}' if does else ''} (default: {default})"
    options.add_argument("-tr", default=default, metavar="TRAINER", help=text)


def add_label(options: Options, several: str = "") -> None:
    """``--label``, a class by its name; ``several`` says what is done with more than one, if there may be."""
    text = "class or region of dataset.json (default: all foreground)"
    if several:
        options.add_argument("--label", nargs="+", default=[], metavar="NAME", help=f"{text}; several: {several}")
    else:
        options.add_argument("--label", metavar="NAME", help=text)


def add_np(options: Options, default: int = 2, former: str = "") -> None:
    """``-np``, and what it was called before."""
    names = ("-np", former) if former else ("-np",)
    text = f"cases worked on at the same time (default: {default})"
    not_shown(options.add_argument(*names, dest="np", type=int, default=default, metavar="N", help=text), former)


def add_seed(options: Options, of_what: str) -> None:
    """``--seed``; ``of_what`` says what is drawn."""
    options.add_argument("--seed", type=int, default=0, metavar="N", help=f"of {of_what} (default: 0)")


def add_overwrite(options: Options, what: str) -> None:
    """``--overwrite``; ``what`` goes on from "replace"."""
    options.add_argument("--overwrite", action="store_true", help=f"replace {what}")


def add_device(
    options: Options, for_what: str, default: str | None, otherwise: str = "", other_names: bool = True
) -> None:
    """``-device``, as nnU-Net writes it, or ``--device``.

    Args:
        options: to which it is added.
        for_what: goes on from "for".
        default: one of the choices; None: that is decided later.
        otherwise: the default in words.
        other_names: take ``--device`` too.
    """
    names = ("-device", "--device") if other_names else ("-device",)
    text = f"for {for_what} (default: {otherwise or default})"
    action = options.add_argument(*names, dest="device", choices=("cpu", "cuda", "mps"), default=default, help=text)
    not_shown(action, "--device")


def add_bootstrap(options: Options, default: int) -> None:
    """``--bootstrap`` and its ``--seed``."""
    options.add_argument(
        "--bootstrap", type=int, default=default, metavar="N", help=f"replicates, 0 for none (default: {default})"
    )
    add_seed(options, "the bootstrap")


def add_name(options: Options, default: str | None, otherwise: str) -> None:
    """``--name``, of a dataset that is made; ``otherwise`` says in words what the default is."""
    options.add_argument(
        "--name", default=default, metavar="NAME", help=f"folder name after DatasetXXX_ (default: {otherwise})"
    )


def add_audit_of(options: Options, near: str) -> None:
    """``--audit`` of a command that works on what was decided on one; ``near`` says where it is looked for first."""
    options.add_argument("--audit", type=Path, metavar="FOLDER", help=f"default: {near}, or below nnUNet_results")


def add_patients_regex(options: Options, otherwise: str, more: str = "") -> None:
    """``--patients-regex``; ``otherwise`` says whose a case is without it, ``more`` what a further group is."""
    options.add_argument(
        "--patients-regex",
        metavar="REGEX",
        help=f"its first group in a case's name is the patient{more} (default: {otherwise})",
    )
