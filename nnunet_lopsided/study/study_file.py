"""From a study.yaml to a study, and the JSON schema by which an editor checks such a file."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.regular import read_text
from nnunet_lopsided.study.arms import Arm
from nnunet_lopsided.study.checks import check_together
from nnunet_lopsided.study.fields import checked, in_one_line, shown
from nnunet_lopsided.study.schema import Budget, Dataset, Study
from nnunet_lopsided.study.trainer_choice import is_ours, with_budget
from nnunet_lopsided.study.yaml_file import parse_yaml


def read_study(path: Path) -> Study:
    """The study in a YAML file.

    Args:
        path: the file; folders in it are relative to where it lies.

    Raises:
        InputError: something in it is unknown, missing or wrong; one line with file, key, expected and found.
    """
    return study_of_text(read_text(path), str(path), path.resolve().parent)


def study_of_text(text: str, source: str, folder: Path) -> Study:
    """As :func:`read_study`, from the text of a file called ``source`` that lies in ``folder``.

    Example:
        >>> text = "{name: small, datasets: [{name: a, id: 501}], arms: [{name: b, trainer: nnUNetTrainer}]}"
        >>> study = study_of_text(text, "small.yaml", Path())
        >>> study.baseline, study.folds, study.device
        ('b', (0,), 'cuda')
    """
    written = checked(_model(), parse_yaml(text, source), source)
    study = replace(
        written,
        datasets=tuple(_in_folder(dataset, folder) for dataset in written.datasets),
        arms=tuple(_with_budget(arm, written.budget, f"{source}: arms[{i}]") for i, arm in enumerate(written.arms)),
        baseline=written.baseline or written.arms[0].name,
    )
    check_together(study, source)
    return study


def study_name(path: Path) -> str:
    """The name of the study in a file that another version of this package may have written.

    Raises:
        InputError: the file holds no mapping with a name.
    """
    content = parse_yaml(read_text(path), str(path))
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected the study that was last run, found {shown(content)}")
    return str(content.get("name"))


def json_schema() -> dict[str, object]:
    """The JSON schema of a study.yaml: keys, what they mean, what they may be, and their defaults.

    What keys mean together, and which trainers there are, is for :func:`read_study` to check.
    """
    schema = _model().json_schema()
    # Pydantic writes defaults as Python has them, such as null for "all patients"; a file has the word.
    for key, default in _defaults().items():
        if default == "":  # a baseline, which has none of its own
            del schema["properties"][key]["default"]
        elif "default" in schema["properties"][key]:
            schema["properties"][key]["default"] = default
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "study.yaml"}


def _defaults() -> dict[str, object]:
    """The keys of a study that sets none but the required ones, as they would stand in a file."""
    datasets, arms = (Dataset("a", id=1),), (Arm(name="a", trainer="nnUNetTrainer"),)
    as_written = _model().dump_python(Study(name="a", datasets=datasets, arms=arms), mode="json")
    return dict(as_written)


@cache
def _model() -> TypeAdapter[Study]:
    # Once: pydantic takes a moment to build it.
    return TypeAdapter(Study)


def _in_folder(dataset: Dataset, folder: Path) -> Dataset:
    if dataset.folder is None:
        return dataset
    # Jobs run in the study's folder, where a relative path would lead elsewhere.
    return replace(dataset, folder=str((folder / Path(dataset.folder).expanduser()).resolve()))


def _with_budget(arm: Arm, budget: Budget, place: str) -> Arm:
    """With the study's budget in the name of its trainer, where it is one of ours."""
    if not is_ours(arm.trainer):
        return arm
    try:
        return replace(arm, trainer=with_budget(arm.trainer, budget.epochs, budget.iterations))
    except ValidationError as error:
        raise in_one_line(error, place) from None
