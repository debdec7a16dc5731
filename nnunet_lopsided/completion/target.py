"""A dataset that a completion writes: whether it may, and whether it is there already."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_lopsided.audit.inputs import AuditInputs
from nnunet_lopsided.completion.completed_variant import COMPLETION_FILE
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import file_digest, read_json
from nnunet_lopsided.nnunet.paths import names_of_dataset, new_dataset_name, nnunet_path, plain_name
from nnunet_lopsided.nnunet.raw import check_id_is_free, check_raw_target

Settings = Mapping[str, object]


@dataclass(frozen=True)
class Target:
    """A variant to be written.

    Attributes:
        id: of the dataset.
        name: of its folder, after ``DatasetXXX_``.
    """

    id: int
    name: str

    @property
    def folder(self) -> Path:
        """Its raw folder, which need not exist."""
        return nnunet_path("nnUNet_raw") / new_dataset_name(self.id, self.name)

    def check(self, overwrite: bool) -> None:
        """Refuse what cannot be written, before hours of training.

        Whether an earlier completion is of just this call is told later, by :meth:`is_done`.

        Raises:
            InputError: the id is in use, or id or name are not allowed.
        """
        if not overwrite and (self.folder / COMPLETION_FILE).is_file():
            check_id_is_free(self.id, self.folder, overwrite=True)
        else:
            check_raw_target(self.id, self.name, COMPLETION_FILE, overwrite)

    def is_done(self, settings: Settings, overwrite: bool) -> bool:
        """Whether the variant is there and was made of just this.

        Raises:
            InputError: it was made of something else, and may not be overwritten.
        """
        if not (self.folder / COMPLETION_FILE).is_file():
            return False
        if read_json(self.folder / COMPLETION_FILE, dict).get("settings") == settings:
            return True
        if overwrite:
            return False
        raise InputError(f"{self.folder} was completed with other predictions or settings; --overwrite makes it anew")


def final_target(source: str, output_id: int, name: str | None) -> Target:
    """The variant that a completion of ``source``, a folder's name, is asked for.

    Raises:
        InputError: the id is the source's.
    """
    number = re.fullmatch(r"Dataset([0-9]{3})_(.+)", source)
    if number is None or int(number[1]) == output_id:
        raise InputError(f"output id {output_id} is the id of the source, {source}")
    return Target(output_id, name or plain_name(f"{number[2]}Completed"))


def first_target(source: str, final: Target, first_round: int | None) -> Target:
    """The variant of the first of two rounds: a dataset of its own, as nnU-Net wants one for every set of labels.

    Args:
        source: folder name of the source.
        final: the variant of the second round.
        first_round: its id; None: the one after the final variant's.

    Raises:
        InputError: the id is the source's or the final variant's.
    """
    number = final.id + 1 if first_round is None else first_round
    if number == final.id or source.startswith(f"Dataset{number:03d}_"):
        taken = final.folder.name if number == final.id else source
        raise InputError(f"the first round needs an id of its own, {number} is that of {taken}; see --first-round")
    # One that was completed before, in one round, is what the second round goes on from.
    known = [name for name in names_of_dataset(number, ("nnUNet_raw",)) if _is_completion(name)]
    return Target(number, known[0].partition("_")[2] if len(known) == 1 else f"{final.name}Round1")


def _is_completion(name: str) -> bool:
    return (nnunet_path("nnUNet_raw") / name / COMPLETION_FILE).is_file()


def digest_of_predictions(inputs: AuditInputs) -> str:
    """Of all predictions and labels, by which a repeated training is noticed: it makes another completion."""
    digest = hashlib.sha256()
    for case in inputs.cases:
        array = case.predictions[0].array
        assert array is not None, "probabilities were asked for"
        digest.update(file_digest(array).encode() + file_digest(case.label).encode())
    return digest.hexdigest()


def digest_of_settings(settings: Settings) -> str:
    """By which a training knows of which completion it is.

    Example:
        >>> digest_of_settings({"a": 1, "b": 2}) == digest_of_settings({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
