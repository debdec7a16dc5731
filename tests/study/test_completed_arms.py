"""Arms that train on completed labels: the datasets and jobs that two rounds, zones and a read sample need."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.study.expansion import expand
from nnunet_lopsided.study.folder import StudyFolder
from nnunet_lopsided.study.preparation import trained_without_seeds
from nnunet_lopsided.study.runs import choose_ids, runs_of
from nnunet_lopsided.study.schema import Study
from nnunet_lopsided.study.study_file import study_of_text

TEXT = """
name: small
datasets:
  - {name: mets, folder: /data/Mets}
censoring: [none, {mode: size, rate: 0.5}]
configurations: [2d]
arms:
  - {name: recipe, trainer: nnUNetTrainerLopsided_5epochs}
ARMS
folds: [0, 1]
device: cpu
"""
SOFT = "nnUNetTrainerLopsided_5epochs_softtargets"
BY = "mets-size50-s0-completed-by-2d-recipe-r1"


def study(*arms: str, more: str = "") -> Study:
    listed = "\n".join(f"  - {{{arm}}}" for arm in arms)
    return study_of_text(TEXT.replace("ARMS", listed) + more, "study", Path("/"))


def test_two_rounds_train_their_second_cross_validation_in_jobs_of_its_own() -> None:
    found = study(f"name: twice, trainer: {SOFT}, completed: {{by: recipe, rounds: 2}}")
    ids = choose_ids(found, {})
    jobs = {job.name: job for job in expand(found, ids)}
    last = jobs[f"complete/{BY}-rounds2"]
    own = f"-o {ids[BY]} --name {BY}"
    first = f"lopsided-complete -d 801 -c 2d -tr nnUNetTrainerLopsided_5epochs_seed1 {own}"
    assert " ".join(jobs[f"complete/{BY}"].command) == f"{first} --way soft -device cpu --overwrite -np 2"
    assert " ".join(last.command) == (
        f"lopsided-complete -d 801 -c 2d -tr nnUNetTrainerLopsided_5epochs_seed1 -o {ids[f'{BY}-rounds2']} "
        f"--name {BY}-rounds2 --way soft --rounds 2 --first-round {ids[BY]} -device cpu --overwrite -np 2"
    )
    assert last.needs == (f"train/{BY}-f0", f"train/{BY}-f1")
    second = jobs[f"train/{BY}-f1"]
    assert " ".join(second.command) == (
        f"nnUNetv2_train {ids[BY]} 2d 1 -tr nnUNetTrainerLopsided_5epochs_seed1_softtargets -device cpu --npz"
    )
    assert (second.needs, second.run, second.results) == ((f"complete/{BY}",), "", last.results)
    assert second.fold_folder.endswith("nnUNetTrainerLopsided_5epochs_seed1_softtargets__nnUNetPlans__2d/fold_1")
    train = jobs["train/mets-size50-s0-2d-twice-r1-f0"]
    assert train.command[1] == str(ids[f"{BY}-rounds2"])
    assert train.needs == (f"complete/{BY}-rounds2",)
    names = list(jobs)
    assert all(names.index(need) < names.index(job.name) for job in jobs.values() for need in job.needs)


def test_one_round_and_two_share_the_first() -> None:
    found = study(
        f"name: once, trainer: {SOFT}, completed: {{by: recipe}}",
        f"name: twice, trainer: {SOFT}, completed: {{by: recipe, rounds: 2}}",
    )
    names = [job.name for job in expand(found, choose_ids(found, {}))]
    assert names.count(f"complete/{BY}") == 1
    assert len(names) == len(set(names))


def test_no_two_jobs_train_into_one_folder(tmp_path: Path) -> None:
    """Without seeds the second cross-validation of an arm is the training of another; with them it is not."""
    arms = (
        f"name: once, trainer: {SOFT}, completed: {{by: recipe}}",
        f"name: twice, trainer: {SOFT}, completed: {{by: recipe, rounds: 2}}",
    )
    found = study(*arms, more="seeds: false\n")
    jobs = expand(found, choose_ids(found, {}))
    folders = [job.fold_folder for job in jobs if job.fold_folder]
    assert len(folders) == len(set(folders))
    (last,) = (job for job in jobs if job.name == f"complete/{BY}-rounds2")
    assert last.needs == ("train/mets-size50-s0-2d-once-r1-f0", "train/mets-size50-s0-2d-once-r1-f1")
    assert not trained_without_seeds(study(*arms), StudyFolder(tmp_path))


def test_a_sample_is_read_by_the_truth_and_makes_zones() -> None:
    found = study(
        "name: read, trainer: nnUNetTrainer, completed: {by: recipe, sample: 60}",
        "name: unread, trainer: nnUNetTrainer, completed: {by: recipe, way: zones}",
        "name: both, trainer: nnUNetTrainer, completed: {by: recipe, rounds: 2, sample: 60}",
    )
    ids = choose_ids(found, {})
    jobs = {job.name: " ".join(job.command) for job in expand(found, ids)}
    begin = "lopsided-complete -d 801 -c 2d -tr nnUNetTrainerLopsided_5epochs_seed1 -o"
    for name, more in (
        ("zones-sample60", "--way zones --sample 60 --truth 800"),
        ("zones", "--way zones"),
        ("zones-sample60-rounds2", f"--way zones --sample 60 --truth 800 --rounds 2 --first-round {ids[BY]}"),
    ):
        own = f"{ids[f'{BY}-{name}']} --name {BY}-{name}"
        assert jobs[f"complete/{BY}-{name}"] == f"{begin} {own} {more} -device cpu --overwrite -np 2"
    # Whole labels lack nothing, so there is nothing that a reader who knows the truth could decide.
    assert [run.name for run in runs_of(found) if run.arm.name == "read"] == ["mets-size50-s0-2d-read-r1"]
    assert [run.name for run in runs_of(found) if run.arm.name == "unread"] == [
        "mets-full-2d-unread-r1",
        "mets-size50-s0-2d-unread-r1",
    ]


@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        (f"trainer: {SOFT}, completed: {{by: recipe, rounds: 3}}", "completed.rounds: expected a whole number"),
        (f"trainer: {SOFT}, completed: {{by: recipe, rounds: 0}}", "completed.rounds: expected a whole number"),
        ("trainer: nnUNetTrainer, completed: {by: recipe, sample: 1}", "sample: expected 0 or at least 2, found 1"),
        (
            f"trainer: {SOFT}, completed: {{by: recipe, sample: 60, way: soft}}",
            "way: expected zones where a sample is read, found soft",
        ),
        (
            f"trainer: {SOFT}, completed: {{by: recipe, sample: 60}}",
            "expected a trainer without _softtargets in its name for an arm completed by zones",
        ),
        (
            "trainer: nnUNetTrainer, completed: {by: plain, rounds: 2, way: zones}",
            "expected by to name an arm whose trainer takes soft targets",
        ),
        ("trainer: nnUNetTrainer, completed: {by: plain}", "expected a trainer with _softtargets in its name"),
    ],
)
def test_what_is_refused(arm: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        study("name: plain, trainer: nnUNetTrainer", f"name: done, {arm}")


def test_zones_need_no_trainer_of_ours() -> None:
    done = "name: done, trainer: nnUNetTrainer, completed: {by: plain, way: zones}"
    assert study("name: plain, trainer: nnUNetTrainer", done).arms[-1].own_labels == "completed by plain by zones"
