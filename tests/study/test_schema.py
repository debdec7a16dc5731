"""study.yaml: what is accepted, and the line that says what is wrong."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.study.arms import Arm, Censoring, Relabelled
from nnunet_lopsided.study.presets import preset_names, preset_text
from nnunet_lopsided.study.schema import Dataset, Phantom, Plan25d
from nnunet_lopsided.study.study_file import json_schema, study_of_text

SMALLEST = """
name: small
datasets:
  - {name: brains, phantom: {train: 4}}
arms:
  - {name: plain, trainer: nnUNetTrainer}
"""


def study(text: str):
    return study_of_text(text, "my.yaml", Path("/here"))


def problem(text: str) -> str:
    with pytest.raises(InputError) as error:
        study(text)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_smallest_study() -> None:
    found = study(SMALLEST)
    assert found.datasets == (Dataset("brains", phantom=Phantom(train=4)),)
    assert found.arms == (Arm(name="plain", trainer="nnUNetTrainer"),)
    assert found.censoring == (Censoring(),)
    assert (found.baseline, found.folds, found.repetitions, found.device) == ("plain", (0,), 1, "cuda")
    assert (found.configurations, found.plans) == (("3d_fullres",), "nnUNetPlans")
    assert found.evaluation.cases == ("test",)


def test_arms_with_labels_of_their_own() -> None:
    text = SMALLEST + (
        "  - {name: oracle, trainer: nnUNetTrainer, ignored: true}\n"
        "  - {name: again, trainer: nnUNetTrainer, relabelled: {by: plain}}\n"
        "folds: [0, 1]\n"
    )
    assert study(text).arms[1:] == (
        Arm(name="oracle", trainer="nnUNetTrainer", ignored=True),
        Arm(name="again", trainer="nnUNetTrainer", relabelled=Relabelled("plain", 0.5)),
    )
    untouched = "expected by to name an earlier arm whose labels are as they are"
    for old, new, expected in (
        ("by: plain", "by: oracle", f"arms[2]: {untouched}, found oracle"),
        ("by: plain", "by: again", f"arms[2]: {untouched}, found again"),
        ("by: plain", "by: plain, above: .4, read: 2", "arms[2].relabelled: expected either above or read, found both"),
        ("by: plain", "by: plain, read: 0", "arms[2].relabelled.read: expected a whole number of at least 1, found 0"),
        ("by: plain", "by: plain, above: 2", "arms[2].relabelled.above: expected a number from 0 to 1, found 2"),
        ("relabelled:", "ignored: true, relabelled:", "arms[2]: expected either ignored or relabelled, found both"),
        ("folds: [0, 1]", "folds: [all]", "arms[2]: expected at least two folds in the study"),
        ("folds: [0, 1]", "folds: [1]", "arms[2]: expected at least two folds in the study"),
        (
            "relabelled: {by: plain}}",
            "relabelled: {by: plain}}\n"
            "  - {name: more, trainer: nnUNetTrainerTversky, relabelled: {by: plain, above: .7}}",
            "arms[3]: expected above to be 0.5, as in the earlier arm that is relabelled by plain, found 0.7",
        ),
        (
            "relabelled: {by: plain}}",
            "relabelled: {by: plain, read: 9}}\n"
            "  - {name: more, trainer: nnUNetTrainerTversky, relabelled: {by: plain, read: 8}}",
            "arms[3]: expected read to be 9, as in the earlier arm that is relabelled by plain, found 8",
        ),
        (
            "ignored: true",
            "ignored: true, repetitions: 2",
            "arms[1]: expected at most as many repetitions as the study",
        ),
        ("ignored: true", "ignored: false", "arms: expected different ones, found nnUNetTrainer twice"),
        ("plain,", "plain, censoring: [size50],", "arms[2]: expected arm plain to be trained on full too"),
    ):
        assert expected in problem(text.replace(old, new) + "censoring: [none, {mode: size, rate: .5}]\n")
    fewer = text.replace("{name: plain,", "{name: plain, repetitions: 2,") + "repetitions: 3\n"
    assert "arms[2]: expected at most as many repetitions as arm plain has, 2" in problem(fewer)
    completed = "  - {name: done, trainer: nnUNetTrainerLopsided_softtargets, completed: {by: plain}}\n"
    for old, new, expected in (
        ("by: plain", "by: plain", "arms[3]: expected by to name an arm whose trainer takes soft targets"),
        ("_softtargets", "", "arms[3]: expected a trainer with _softtargets in its name for a completed arm"),
        ("completed", "ignored: true, completed", "arms[3]: expected either ignored or completed, found both"),
        ("by: plain", "by: plain, above: .3", "arms[3].completed"),
        ("by: plain", "by: oracle", f"arms[3]: {untouched}, found oracle"),
    ):
        assert expected in problem(text.replace("folds:", completed.replace(old, new) + "folds:"))
    both = text.replace("folds:", "  - {name: read, trainer: nnUNetTrainer, relabelled: {by: plain, read: 9}}\nfolds:")
    assert study(both).arms[3].relabelled == Relabelled("plain", read=9)


def test_every_key() -> None:
    found = study("""
name: all-keys
datasets:
  - {name: a, folder: sub/Dataset001_A}
  - {name: b, id: 501}
censoring: [none, {mode: stochastic, rate: 0.5, seeds: [3, 4]}, {mode: reader}]
patients: [10, all]
configurations: [2.5d, 2d]
planner: nnUNetPlannerResEncM
plan_25d: {slices: 5, encoder: resnet18, decoder: deeplabv3, output_stride: 8, patch: [64, 80], batch_size: 4}
arms:
  - {name: one, trainer: nnUNetTrainerLopsided_a10, censoring: [stochastic50]}
  - {name: two, trainer: nnUNetTrainer25D_7epochs}
baseline: two
folds: [0, 1]
repetitions: 2
budget: {epochs: 5, iterations: 50}
evaluation: {cases: [validation], profile: brats-mets-2023, label: lesion, patients_regex: '(.+)_'}
mirroring: false
device: cpu
resources: {cpus: 4, gpus: 2, memory_gb: 16, hours: 1.5, seconds_per_iteration: 0.1}
dataset_ids: [700, 709]
""")
    assert [d.source for d in found.datasets] == ["/here/sub/Dataset001_A", 501]
    assert [c.name for c in found.censoring] == ["full", "stochastic50", "reader"]
    assert found.censoring[1] == Censoring("stochastic", 0.5, (3, 4))
    assert found.patients == (10, None)
    assert found.plans == "nnUNetResEncUNetMPlans"
    assert found.plan_25d == Plan25d(
        slices=5, encoder="resnet18", decoder="deeplabv3", output_stride=8, patch=(64, 80), batch_size=4
    )
    assert found.arms == (
        Arm(name="one", trainer="nnUNetTrainerLopsided_a10_5epochs_50iters", censoring=("stochastic50",)),
        Arm(name="two", trainer="nnUNetTrainer25D_7epochs_50iters"),
    )
    assert (found.baseline, found.folds, found.repetitions) == ("two", (0, 1), 2)
    assert (found.evaluation.cases, found.evaluation.label) == (("validation",), "lesion")
    assert (found.mirroring, found.device, found.resources.hours) == (False, "cpu", 1.5)
    assert found.dataset_ids == (700, 709)


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_studies(name: str) -> None:
    assert study(preset_text(name)).name == name


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "name: small",
            "name: small\nfold: [0]",
            "my.yaml: fold: expected one of the keys name, datasets, censoring, ",
        ),
        ("name: small", "name: small\nfold: [0]", ", found fold. Did you mean folds?"),
        ("name: small", "name: a b", "my.yaml: name: expected a name of letters, digits, '.', '_' and '-'"),
        ("name: small", "", "my.yaml: expected the key name, found only datasets, arms"),
        ("{train: 4}", "{train: four}", "my.yaml: datasets[0].phantom.train: expected a whole number, found 'four'"),
        ("{train: 4}", "{train: 1}", "phantom.train: expected a whole number of at least 2, found 1"),
        ("{train: 4}", "{train: true}", "phantom.train: expected a whole number, found true"),
        (
            "{train: 4}",
            "{test: 0}",
            "datasets[0].phantom.test: expected test cases, or evaluation: cases: [validation]",
        ),
        (", phantom: {train: 4}", "", "datasets[0]: expected exactly one of the keys folder, id, phantom, found none"),
        ("phantom: {train: 4}", "id: 1, folder: x", "keys folder, id, phantom, found folder, id"),
        (
            "trainer: nnUNetTrainer}",
            "trainer: nnUNetTrainerLopsidd}",
            "my.yaml: arms[0].trainer: expected a trainer of nnU-Net or of this package, found nnUNetTrainerLopsidd. "
            "Did you mean nnUNetTrainerLopsided?",
        ),
        (
            "trainer: nnUNetTrainer}",
            "trainer: nnUNetTrainerLopsided_x3}",
            "my.yaml: arms[0].trainer: trainer name nnUNetTrainerLopsided_x3: cannot read '_x3'.",
        ),
        (
            "trainer: nnUNetTrainer}",
            "trainer: nnUNetTrainer, censoring: [size50]}",
            "censoring[0]: expected one of full",
        ),
        ("arms:", "arms: []\nx:", "found x"),
        ("arms:", "folds: []\narms:", "my.yaml: folds: expected a list with at least one element, found a list of 0"),
        ("arms:", "folds: [0, 0]\narms:", "my.yaml: folds[1]: expected every element once, found 0 twice"),
        ("arms:", "folds: [all, 0]\narms:", "my.yaml: folds: expected either all or numbers"),
        ("arms:", "censoring: [{mode: size}]\narms:", "censoring[0]: expected a rate for mode size, found none"),
        ("arms:", "censoring: [{mode: size, rate: 50}]\narms:", "rate: expected a number from 0 to 1, found 50"),
        ("arms:", "censoring: [{mode: small, rate: .5}]\narms:", "expected one of stochastic, size, reader, contrast"),
        ("arms:", "censoring: [{mode: size, rate: .5, seeds: [0, 1]}]\narms:", "expected one seed: mode size deletes"),
        (
            "arms:",
            "censoring: [size]\narms:",
            "expected none or a mapping with the keys mode, rate, seeds, found 'size'",
        ),
        ("arms:", "configurations: [2.5]\narms:", "expected a configuration such as 2d, 2.5d, 3d_fullres, found 2.5"),
        ("arms:", "baseline: plan\narms:", "baseline: expected one of plain, found 'plan'. Did you mean plain?"),
        ("arms:", "plan_25d: {slices: 4}\narms:", "plan_25d: slices must be a positive odd number, got 4"),
        ("arms:", "plan_25d: {output_stride: 12}\narms:", "plan_25d: output stride must be 8 or 16, got 12"),
        ("arms:", "plan_25d: {decoder: unet}\narms:", "plan_25d: decoder must be deeplabv3 or deeplabv3plus, got unet"),
        ("arms:", "plan_25d: {slices: 3}\narms:", "plan_25d: expected 2.5d among the configurations, found 3d_fullres"),
        ("arms:", "dataset_ids: [900, 800]\narms:", "expected two ids from 1 to 999, the smaller first"),
        ("arms:", "evaluation: {on: [test]}\narms:", "not valid YAML: line 5: expected text as a key, found True"),
        ("arms:", "name: again\narms:", "not valid YAML: line 5: key name is given twice"),
        ("arms:", "arms: [", "my.yaml: not valid YAML: "),
        ("{train: 4}", "{train: 0_4}", "my.yaml: not valid YAML: line 4: YAML reads 0_4 as 4; write that, or the text"),
        (
            "arms:",
            "folds: [010]\narms:",
            "my.yaml: not valid YAML: line 5: YAML reads 010 as 8; write that, or the text",
        ),
        (
            "arms:",
            "arms:\n  - {name: plain, trainer: nnUNetTrainer_5epochs}",
            "my.yaml: arms: expected different ones, found plain twice",
        ),
        (
            "arms:",
            "arms:\n  - {name: other, trainer: nnUNetTrainer}",
            "my.yaml: arms: expected different ones, found nnUNetTrainer twice",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(old: str, new: str, expected: str) -> None:
    assert old in SMALLEST
    assert expected in problem(SMALLEST.replace(old, new))


def test_repetitions_of_our_trainers_have_seeds() -> None:
    arms = "{name: plain, trainer: nnUNetTrainer}"
    more = "\n  - {name: ours, trainer: nnUNetTrainer25D_5epochs}"
    more += "\n  - {name: fixed, trainer: nnUNetTrainer25D_seed7_5epochs}"
    text = SMALLEST.replace(arms, arms + more) + "repetitions: 2\n"
    names = [
        "nnUNetTrainer",
        "nnUNetTrainer25D_5epochs_seed1",
        "nnUNetTrainer25D_seed7_5epochs",
        "nnUNetTrainer",
        "nnUNetTrainer25D_5epochs_seed2",
        "nnUNetTrainer25D_seed7_5epochs",
    ]
    for seeds in ("", "seeds: true\n"):
        found = study(text + seeds)
        assert [found.trainer_of(arm, repetition) for repetition in (1, 2) for arm in found.arms] == names
    found = study(text + "seeds: false\n")
    assert [found.trainer_of(arm, 2) for arm in found.arms] == [arm.trainer for arm in found.arms]
    assert "my.yaml: seeds: expected true or false, found 1" in problem(text + "seeds: 1\n")


def test_arms_that_would_be_one_trainer_with_their_seeds() -> None:
    arms = "{name: plain, trainer: nnUNetTrainer}"
    more = "\n  - {name: ours, trainer: nnUNetTrainer25D}\n  - {name: fixed, trainer: nnUNetTrainer25D_seed2}"
    text = SMALLEST.replace(arms, arms + more)
    assert study(text).repetitions == 1  # and that is seed 1
    message = problem(text + "repetitions: 2\n")
    assert "my.yaml: arms: expected different ones, found nnUNetTrainer25D_seed2 twice" in message
    assert study(text + "repetitions: 2\nseeds: false\n").repetitions == 2


def test_a_profile_that_has_another_name_now() -> None:
    said = problem(SMALLEST + "evaluation: {profile: brats-mets}")
    assert said == (
        "my.yaml: evaluation.profile: expected brats-mets-2023, as this profile is called now, found 'brats-mets'"
    )


def test_an_empty_file() -> None:
    assert problem("").startswith("my.yaml: expected a mapping with the keys name, datasets,")


def test_fold_all_has_no_validation_cases() -> None:
    text = SMALLEST + "folds: [all]\nevaluation: {cases: [validation]}\n"
    assert "folds: expected numbers where validation cases are evaluated" in problem(text)


@pytest.mark.parametrize("text", ["name: 2020-13-45", "[" * 3000])
def test_yaml_that_the_parser_chokes_on(text: str) -> None:
    with pytest.raises(InputError, match="not valid YAML"):
        study(text)


def test_nothing_behind_a_key_is_its_default() -> None:
    assert study(SMALLEST + "folds:\nseeds: ~\nresources: {cpus: }\n") == study(SMALLEST)
    assert "my.yaml: patients[0]: expected a whole number, found nothing" in problem(SMALLEST + "patients: [~]\n")
    assert "censoring[0].mode: expected one of stochastic, " in problem(SMALLEST + "censoring: [{mode: }]\n")


def test_studies_are_frozen_and_checked_in_python_too() -> None:
    read = study(SMALLEST + "patients: [3, all]\n")
    assert replace(read, seeds=False).patients == (3, None)
    with pytest.raises(FrozenInstanceError):
        read.repetitions = 2
    with pytest.raises(ValueError, match="expected a number from 0 to 1"):
        Censoring("size", 50)


def test_the_json_schema_for_editors() -> None:
    schema = json_schema()
    validator = Draft202012Validator(schema)
    validator.check_schema(schema)
    for name in preset_names():
        validator.validate(yaml.safe_load(preset_text(name)))
    smallest = yaml.safe_load(SMALLEST)
    wrong: Any
    for wrong in (
        {"fold": [0]},
        {"folds": []},
        {"folds": [0, 0]},
        {"folds": ["some"]},
        {"patients": [0]},
        {"censoring": [{"rate": 0.5}]},
        {"censoring": [{"mode": "size", "rate": 50}]},
        {"datasets": [{"name": "a", "id": 1, "folder": "b"}]},
        {"device": "gpu"},
        {"seeds": 1},
        {"dataset_ids": [1]},
        {"name": "a b"},
        {"configurations": ["2.5"]},
    ):
        assert not validator.is_valid({**smallest, **wrong}), wrong
    keys = schema["properties"]
    assert isinstance(keys, dict)
    assert (keys["censoring"]["default"], keys["patients"]["default"]) == (["none"], ["all"])
    for key, content in keys.items():
        assert content["description"], key
        if "default" in content:
            assert validator.is_valid({**smallest, key: content["default"]}), key


def test_a_function_is_no_trainer() -> None:
    from nnunet_lopsided.study.trainer_choice import is_ours

    assert is_ours("nnUNetTrainerLopsided_a3")
    assert not is_ours("base_trainers")


MERGED = """
name: merged
datasets: [{name: a, id: 501}]
arms:
  - &first {name: one, trainer: nnUNetTrainer}
  - &second {<<: *first, name: two, trainer: nnUNetTrainer25D}
  - {<<: *second, name: three, trainer: nnUNetTrainerLopsided}
"""


def test_what_a_merge_key_brings_may_be_replaced() -> None:
    arms = study_of_text(MERGED, "s.yaml", Path()).arms
    assert [arm.name for arm in arms] == ["one", "two", "three"]
    assert [arm.trainer.split("_")[0][len("nnUNetTrainer") :] for arm in arms] == ["", "25D", "Lopsided"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{<<: *second, name: three,", "{<<: *first, <<: *second, name: three,", "line 7: key << is given twice"),
        ("{<<: *second, name: three,", "{<<: 5, name: three,", "not valid YAML: .*expected a mapping"),
        ("{<<: *first, name: two,", "{<<: *first, name: two, name: b,", "line 6: key name is given twice"),
    ],
)
def test_merge_keys_that_cannot_be(old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        study_of_text(MERGED.replace(old, new), "s.yaml", Path())
