"""A study as jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.study.expansion import expand
from nnunet_lopsided.study.jobs import job_of_json, same_outcome
from nnunet_lopsided.study.runs import choose_ids, runs_of, variants_of
from nnunet_lopsided.study.schema import Study
from nnunet_lopsided.study.study_file import study_of_text

TEXT = """
name: small
datasets:
  - {name: mets, folder: /data/Mets}
censoring: [none, {mode: stochastic, rate: 0.5, seeds: [0, 1]}]
configurations: [2.5d]
plan_25d: {encoder: resnet18, patch: [64, 80]}
arms:
  - {name: plain, trainer: nnUNetTrainer}
  - {name: other, trainer: nnUNetTrainer_5epochs, censoring: [stochastic50]}
evaluation: {cases: [test, validation]}
device: cpu
"""


def study(text: str = TEXT, more: str = "") -> Study:
    return study_of_text(text + more, "study", Path("/"))


def jobs_of(text: str = TEXT, more: str = "") -> dict[str, str]:
    found = study(text, more)
    return {job.name: " ".join(job.command) for job in expand(found, choose_ids(found, {}))}


def test_the_jobs_of_a_study() -> None:
    jobs = jobs_of()
    assert list(jobs) == [
        "preprocess/mets",
        "plan/mets",
        "censor/mets-stochastic50-s0",
        "share/mets-stochastic50-s0",
        "censor/mets-stochastic50-s1",
        "share/mets-stochastic50-s1",
        *(
            f"{kind}/{run}{end}"
            for run in (
                "mets-full-2.5d-plain-r1",
                "mets-stochastic50-s0-2.5d-plain-r1",
                "mets-stochastic50-s0-2.5d-other-r1",
                "mets-stochastic50-s1-2.5d-plain-r1",
                "mets-stochastic50-s1-2.5d-other-r1",
            )
            for kind, end in (("train", "-f0"), ("predict", ""), ("evaluate", "-test"), ("evaluate", "-validation"))
        ),
    ]


def test_a_study_that_magnifies_test_images() -> None:
    plain = jobs_of()
    jobs = jobs_of(TEXT.replace("validation]}", "validation], magnify: [2, 1.5]}"))
    assert list(jobs) == list(plain)
    changed = {name for name in jobs if jobs[name] != plain[name]}
    assert changed == {name for name in jobs if name.startswith("predict/")}
    for name in changed:
        assert plain[name].startswith("nnUNetv2_predict -i ")
        expected = plain[name].replace("nnUNetv2_predict", "lopsided-predict")
        assert jobs[name] == expected.replace(" -device", " --magnify 1.5 2 -device")


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ("cases: [validation], magnify: [2]", "evaluation.magnify: expected test among the cases, which alone are"),
        ("magnify: [2], confidence: learned", "evaluation.magnify: expected another confidence than learned"),
        ("magnify: [2, 1]", r"evaluation.magnify: the factors must be different numbers above 1, got 2 1$"),
        ("magnify: [0.5]", r"evaluation.magnify\[0\]: expected a number of at least 1, found 0.5"),
        ("magnify: []", "evaluation.magnify: expected a list with at least one element, found a list of 0"),
        ("magnify: [2, 2.0]", r"evaluation.magnify\[1\]: expected every element once"),
    ],
)
def test_magnifications_that_a_study_cannot_have(evaluation: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        study(TEXT.replace("cases: [test, validation]", evaluation))


def test_a_study_by_another_confidence() -> None:
    jobs = jobs_of(TEXT.replace("validation]}", "validation], confidence: sum}"))
    evaluations = [command for name, command in jobs.items() if name.startswith("evaluate/")]
    assert len(evaluations) == 10
    assert all(" --confidence sum " in command for command in evaluations)
    assert not [name for name in jobs if name.startswith("confidence/")]


def test_a_study_that_learns_its_confidence() -> None:
    found = study(TEXT.replace("[test, validation]}", "[test], confidence: learned}"))
    jobs = {job.name: job for job in expand(found, choose_ids(found, {}))}
    run = "mets-stochastic50-s1-2.5d-other-r1"
    model = "nnUNet_results/repetition_1/Dataset802_mets-stochastic50-s1/nnUNetTrainer_5epochs__nnUNetPlans__2.5d"
    assert jobs[f"train/{run}-f0"].command[-1] == "--npz"
    fit = jobs[f"confidence/{run}"]
    assert " ".join(fit.command) == (
        "lopsided-confidence -d 802 -c 2.5d -tr nnUNetTrainer_5epochs -f 0 -np 2 --overwrite"
    )
    assert (fit.needs, fit.results) == ((f"train/{run}-f0",), "nnUNet_results/repetition_1")
    assert jobs[f"predict/{run}"].needs == (f"train/{run}-f0",)
    evaluation = jobs[f"evaluate/{run}-test"]
    assert evaluation.needs == (f"predict/{run}", f"confidence/{run}")
    assert f"--confidence learned --confidence-model {model} " in " ".join(evaluation.command)
    with pytest.raises(InputError, match="numbers where the confidence is learned"):
        study(TEXT.replace("[test, validation]}", "[test], confidence: learned}\nfolds: [all]"))


def test_the_commands_of_a_study() -> None:
    jobs = jobs_of()
    run = "mets-stochastic50-s1-2.5d-other-r1"
    model = "nnUNet_results/repetition_1/Dataset802_mets-stochastic50-s1/nnUNetTrainer_5epochs__nnUNetPlans__2.5d"
    gt = "nnUNet_preprocessed/Dataset80{}/gt_segmentations"
    assert jobs["preprocess/mets"] == "nnUNetv2_plan_and_preprocess -d 800 -c 3d_fullres -npfp 2 -np 2"
    assert jobs["plan/mets"] == "lopsided-plan -d 800 --encoder resnet18 --patch 64 80 --overwrite -np 2"
    assert jobs["censor/mets-stochastic50-s1"] == (
        "lopsided-censor -d 800 -o 802 --name mets-stochastic50-s1 --mode stochastic --rate 0.5 --seed 1 --overwrite "
        "-np 2"
    )
    assert jobs["share/mets-stochastic50-s1"] == "lopsided-share -d 800 -o 802 --overwrite -np 2"
    assert jobs[f"train/{run}-f0"] == "nnUNetv2_train 802 2.5d 0 -tr nnUNetTrainer_5epochs -device cpu --npz"
    assert jobs[f"predict/{run}"] == (
        f"nnUNetv2_predict -i nnUNet_raw/Dataset800_mets/imagesTs -o predictions/{run} -d 802 -c 2.5d "
        "-tr nnUNetTrainer_5epochs -f 0 -device cpu --save_probabilities -npp 1 -nps 1"
    )
    assert jobs[f"evaluate/{run}-test"] == (
        f"lopsided-eval -g nnUNet_raw/Dataset800_mets/labelsTs -p predictions/{run} -o evaluations/{run}/test -np 2 "
        "--overwrite"
    )
    assert jobs[f"evaluate/{run}-validation"] == (
        f"lopsided-eval -g {gt.format('0_mets')} --cv {model} --folds 0 --reference-censored "
        f"{gt.format('2_mets-stochastic50-s1')} -o evaluations/{run}/validation -np 2 --overwrite"
    )
    full = jobs["evaluate/mets-full-2.5d-plain-r1-validation"]
    assert "--reference-censored" not in full


def test_small_configurations_are_planned_one_after_the_other() -> None:
    found = study(TEXT.replace("[2.5d]", "[2d_small, 2.5d]"))
    jobs = {job.name: job for job in expand(found, choose_ids(found, {}))}
    command = "nnUNetv2_plan_and_preprocess -d 800 -c 2d 3d_fullres -npfp 2 -np 2 2"
    assert " ".join(jobs["preprocess/mets"].command) == command
    small = jobs["plan/mets-2d_small"]
    assert " ".join(small.command) == "lopsided-plan -d 800 -c 2d_small --overwrite"
    assert small.needs == ("preprocess/mets",)
    assert jobs["plan/mets"].needs == ("plan/mets-2d_small",)
    assert jobs["share/mets-stochastic50-s0"].needs == ("censor/mets-stochastic50-s0", "plan/mets")
    run = "mets-stochastic50-s0-2d_small-plain-r1"
    assert " ".join(jobs[f"train/{run}-f0"].command).startswith("nnUNetv2_train 801 2d_small 0 -tr nnUNetTrainer ")


def test_every_command_of_a_run_names_the_seed_of_its_repetition() -> None:
    text = TEXT.replace("trainer: nnUNetTrainer_5epochs", "trainer: nnUNetTrainerLopsided_5epochs")
    jobs = jobs_of(text, "repetitions: 2\n")
    run, trainer = "mets-stochastic50-s1-2.5d-other-r2", "nnUNetTrainerLopsided_5epochs_seed2"
    assert f" -tr {trainer} " in jobs[f"train/{run}-f0"]
    assert f" -tr {trainer} " in jobs[f"predict/{run}"]
    model = f"nnUNet_results/repetition_2/Dataset802_mets-stochastic50-s1/{trainer}__nnUNetPlans__2.5d "
    assert f" --cv {model}" in jobs[f"evaluate/{run}-validation"]
    assert " -tr nnUNetTrainer " in jobs["train/mets-full-2.5d-plain-r2-f0"]
    without = jobs_of(text, "repetitions: 2\nseeds: false\n")
    assert " -tr nnUNetTrainerLopsided_5epochs " in without[f"train/{run}-f0"]


def test_needs() -> None:
    found = study()
    needs = {job.name: job.needs for job in expand(found, choose_ids(found, {}))}
    run = "mets-stochastic50-s0-2.5d-plain-r1"
    assert needs["preprocess/mets"] == ()
    assert needs["plan/mets"] == ("preprocess/mets",)
    assert needs["censor/mets-stochastic50-s0"] == ()
    assert needs["share/mets-stochastic50-s0"] == ("censor/mets-stochastic50-s0", "plan/mets")
    assert needs["train/mets-full-2.5d-plain-r1-f0"] == ("plan/mets",)
    assert needs[f"train/{run}-f0"] == ("share/mets-stochastic50-s0",)
    assert needs[f"predict/{run}"] == (f"train/{run}-f0",)
    assert needs[f"evaluate/{run}-test"] == (f"predict/{run}",)
    assert needs[f"evaluate/{run}-validation"] == (f"train/{run}-f0",)
    seen: set[str] = set()
    for name, before in needs.items():
        assert seen.issuperset(before), f"{name} comes before what it needs"
        seen.add(name)


def test_folds_repetitions_gpus_and_plans() -> None:
    text = (
        TEXT.replace("device: cpu", "device: cuda")
        .replace("2.5d]", "2d]")
        .replace("plan_25d: {encoder: resnet18, patch: [64, 80]}\n", "")
    )
    more = (
        "folds: [0, 1]\nrepetitions: 2\nresources: {gpus: 2, cpus: 4, memory_gb: 20, hours: 3}\n"
        "planner: nnUNetPlannerResEncM\nmirroring: false\n"
    )
    found = study(text, more)
    jobs = {job.name: job for job in expand(found, choose_ids(found, {}))}
    run = "mets-full-2d-plain-r2"
    train = jobs[f"train/{run}-f1"]
    assert " ".join(train.command) == (
        "nnUNetv2_train 800 2d 1 -tr nnUNetTrainer -p nnUNetResEncUNetMPlans -device cuda --npz -num_gpus 2"
    )
    assert (train.cpus, train.gpus, train.memory_gb, train.hours) == (4, 2, 20, 3)
    preprocess = jobs["preprocess/mets"]
    assert (preprocess.cpus, preprocess.gpus, preprocess.memory_gb, preprocess.hours) == (4, 0, 20, 3)
    assert train.results == "nnUNet_results/repetition_2"
    assert train.fold_folder == (
        "nnUNet_results/repetition_2/Dataset800_mets/nnUNetTrainer__nnUNetResEncUNetMPlans__2d/fold_1"
    )
    predict = jobs[f"predict/{run}"]
    assert predict.needs == (f"train/{run}-f0", f"train/{run}-f1")
    assert " -f 0 1 " in " ".join(predict.command)
    assert "--disable_tta" in predict.command
    assert predict.gpus == 1
    assert "plan/mets" not in jobs
    assert " ".join(jobs["preprocess/mets"].command) == (
        "nnUNetv2_plan_and_preprocess -d 800 -pl nnUNetPlannerResEncM -c 2d -npfp 4 -np 4"
    )
    assert jobs["preprocess/mets"].gpus == 0
    assert " --folds 0 1 " in " ".join(jobs[f"evaluate/{run}-validation"].command)


def test_patients() -> None:
    found = study(more="patients: [10, all]\n")
    assert [v.name for v in variants_of(found)] == [
        "mets",
        "mets-full-n10",
        "mets-stochastic50-s0-n10",
        "mets-stochastic50-s1-n10",
        "mets-stochastic50-s0",
        "mets-stochastic50-s1",
    ]
    assert [v.labels for v in variants_of(found)][:3] == ["full", "full-n10", "stochastic50-n10"]
    jobs = jobs_of(more="patients: [10, all]\n")
    assert jobs["censor/mets-full-n10"] == (
        "lopsided-censor -d 800 -o 801 --name mets-full-n10 --seed 0 --patients 10 --overwrite -np 2"
    )
    assert "train/mets-full-n10-2.5d-plain-r1-f0" in jobs
    assert "train/mets-full-n10-2.5d-other-r1-f0" not in jobs
    without_all = {run.variant.name for run in runs_of(study(more="patients: [10]\n"))}
    assert without_all == {"mets-full-n10", "mets-stochastic50-s0-n10", "mets-stochastic50-s1-n10"}


def test_without_full_labels_nothing_is_trained_on_them() -> None:
    runs = runs_of(study(TEXT.replace("[none, ", "[")))
    assert {run.variant.name for run in runs} == {"mets-stochastic50-s0", "mets-stochastic50-s1"}


def test_a_phantom_is_made_first() -> None:
    text = TEXT.replace("folder: /data/Mets", "phantom: {train: 6, test: 2, shape: [8, 16, 16], contrast: 1.5}")
    found = study(text)
    jobs = {job.name: job for job in expand(found, choose_ids(found, {}))}
    assert " ".join(jobs["phantom/mets"].command) == (
        "python -m nnunet_lopsided.commands.phantom -d 800 --name mets --train 6 --test 2 --seed 0 --shape 8 16 16 "
        "--spacing 2 1.6 1.6 --contrast 1.5 --overwrite -np 2"
    )
    assert jobs["preprocess/mets"].needs == jobs["censor/mets-stochastic50-s0"].needs == ("phantom/mets",)


def test_ids_are_kept_when_a_study_grows() -> None:
    ids = choose_ids(study(), {})
    assert ids == {"mets": 800, "mets-stochastic50-s0": 801, "mets-stochastic50-s1": 802}
    text = TEXT.replace("[none, ", "[none, {mode: size, rate: 0.5}, ")
    assert choose_ids(study(text), ids) == {**ids, "mets-size50-s0": 803}


def test_too_few_ids() -> None:
    with pytest.raises(InputError, match="dataset_ids must have room for 3 datasets and variants, got 900 to 901"):
        choose_ids(study(more="dataset_ids: [900, 901]\n"), {})


def test_jobs_go_through_json() -> None:
    found = study()
    for job in expand(found, choose_ids(found, {})):
        assert job_of_json(job.as_json()) == job


CHANGED = """
name: small
datasets:
  - {name: mets, folder: /data/Mets}
censoring: [none, {mode: size, rate: 0.5}]
configurations: [2d]
arms:
  - {name: plain, trainer: nnUNetTrainer}
  - {name: oracle, trainer: nnUNetTrainer, ignored: true}
  - {name: again, trainer: nnUNetTrainer, relabelled: {by: plain, above: 0.6}}
folds: [0, 1]
device: cpu
"""


def test_arms_with_labels_of_their_own() -> None:
    found = study(CHANGED)
    ids = choose_ids(found, {})
    assert ids == {
        "mets": 800,
        "mets-size50-s0": 801,
        "mets-full-by-2d-plain-r1": 802,
        "mets-size50-s0-ignored": 803,
        "mets-size50-s0-by-2d-plain-r1": 804,
    }
    jobs = {job.name: job for job in expand(found, ids)}
    command = {name: " ".join(job.command) for name, job in jobs.items()}
    # Whole labels lack nothing that could be ignored.
    assert [run.name for run in runs_of(found)] == [
        "mets-full-2d-plain-r1",
        "mets-full-2d-again-r1",
        "mets-size50-s0-2d-plain-r1",
        "mets-size50-s0-2d-oracle-r1",
        "mets-size50-s0-2d-again-r1",
    ]
    name = "mets-size50-s0-ignored"
    assert command[f"censor/{name}"] == (
        f"lopsided-censor -d 800 -o 803 --name {name} --mode size --rate 0.5 --seed 0 --ignored --overwrite -np 2"
    )
    assert command["train/mets-size50-s0-2d-oracle-r1-f0"].startswith("nnUNetv2_train 803 2d 0 -tr nnUNetTrainer ")
    name = "mets-size50-s0-by-2d-plain-r1"
    assert command[f"audit/{name}"] == (
        f"lopsided-audit -d 801 -tr nnUNetTrainer -c 2d -f 0 1 -o audits/{name} -device cpu --overwrite -np 2"
    )
    assert jobs[f"audit/{name}"].needs == ("train/mets-size50-s0-2d-plain-r1-f0", "train/mets-size50-s0-2d-plain-r1-f1")
    assert jobs[f"audit/{name}"].results == "nnUNet_results/repetition_1"
    assert command[f"apply/{name}"] == (
        f"lopsided-audit apply --accept-above 0.6 --audit audits/{name} -o 804 --name {name} --overwrite -np 2"
    )
    assert jobs[f"apply/{name}"].needs == (f"audit/{name}",)
    assert jobs[f"share/{name}"].needs == (f"apply/{name}", "preprocess/mets")
    again = jobs["train/mets-size50-s0-2d-again-r1-f1"]
    assert " ".join(again.command) == "nnUNetv2_train 804 2d 1 -tr nnUNetTrainer -device cpu --npz"
    assert again.needs == (f"share/{name}",)
    seen: set[str] = set()
    for job in jobs.values():
        assert seen.issuperset(job.needs)
        seen.add(job.name)


def test_an_audit_predicts_and_gets_what_predictions_get() -> None:
    found = study(CHANGED.replace("device: cpu", "device: cuda"), "resources: {memory_gb: 20, hours: 3}\n")
    jobs = {job.name: job for job in expand(found, choose_ids(found, {}))}
    for job in (jobs["audit/mets-size50-s0-by-2d-plain-r1"], jobs["predict/mets-full-2d-plain-r1"]):
        assert (job.gpus, job.memory_gb, job.hours) == (1, 20, 3)


def test_what_labels_lacked_is_told_by_the_censored_ones() -> None:
    found = study(CHANGED, "evaluation: {cases: [validation], label: core, patients_regex: (.*)_.*}\n")
    jobs = {job.name: " ".join(job.command) for job in expand(found, choose_ids(found, {}))}
    for arm in ("plain", "oracle", "again"):
        assert (
            "--reference-censored nnUNet_preprocessed/Dataset801_mets-size50-s0/gt_segmentations"
            in (jobs[f"evaluate/mets-size50-s0-2d-{arm}-r1-validation"])
        )
    assert "--label core --patients-regex (.*)_.* -device cpu" in jobs["audit/mets-size50-s0-by-2d-plain-r1"]


def test_every_repetition_has_its_own_teacher() -> None:
    found = study(CHANGED, "repetitions: 2\n")
    jobs = {job.name: job for job in expand(found, choose_ids(found, {}))}
    assert jobs["audit/mets-size50-s0-by-2d-plain-r2"].results == "nnUNet_results/repetition_2"
    assert jobs["train/mets-size50-s0-2d-again-r2-f0"].needs == ("share/mets-size50-s0-by-2d-plain-r2",)
    assert [name for name in jobs if name.startswith("censor/")] == [
        "censor/mets-size50-s0",
        "censor/mets-size50-s0-ignored",
    ]


def test_a_reader_who_knows_the_truth_shares_the_audit() -> None:
    """An arm read by a reader beside one that nobody reads: one audit, labels of their own."""
    read = "  - {name: read, trainer: nnUNetTrainer, relabelled: {by: plain, read: 40}}\n"
    found = study(CHANGED.replace("folds:", read + "folds:"))
    ids = choose_ids(found, {})
    jobs = {job.name: job for job in expand(found, ids)}
    name = "mets-size50-s0-by-2d-plain-r1"
    assert [job for job in jobs if job.startswith("audit/")] == ["audit/mets-full-by-2d-plain-r1", f"audit/{name}"]
    assert [run.name for run in runs_of(found) if run.arm.name == "read"] == ["mets-size50-s0-2d-read-r1"]
    assert " ".join(jobs[f"apply/{name}-read"].command) == (
        f"lopsided-audit apply --truth 800 --first 40 --audit audits/{name} -o {ids[f'{name}-read']} "
        f"--name {name}-read --overwrite -np 2"
    )
    assert jobs[f"apply/{name}-read"].needs == (f"audit/{name}",)
    train = jobs["train/mets-size50-s0-2d-read-r1-f0"]
    assert train.command[1] == str(ids[f"{name}-read"])
    assert train.needs == (f"share/{name}-read",)


def test_a_completed_arm_trains_on_soft_targets_of_its_teacher() -> None:
    arms = (
        "  - {name: recipe, trainer: nnUNetTrainerLopsided_5epochs}\n"
        "  - {name: done, trainer: nnUNetTrainerLopsided_5epochs_softtargets, completed: {by: recipe}}\n"
    )
    found = study(CHANGED.replace("folds:", arms + "folds:"), "repetitions: 2\n")
    ids = choose_ids(found, {})
    jobs = {job.name: job for job in expand(found, ids)}
    name = "mets-size50-s0-completed-by-2d-recipe-r2"
    job = jobs[f"complete/{name}"]
    assert " ".join(job.command) == (
        f"lopsided-complete -d 801 -c 2d -tr nnUNetTrainerLopsided_5epochs_seed2 -o {ids[name]} --name {name} "
        "--way soft -device cpu --overwrite -np 2"
    )
    assert job.results == "nnUNet_results/repetition_2"
    assert job.needs == ("train/mets-size50-s0-2d-recipe-r2-f0", "train/mets-size50-s0-2d-recipe-r2-f1")
    assert "--npz" in jobs[job.needs[0]].command
    train = jobs["train/mets-size50-s0-2d-done-r2-f1"]
    assert train.command[:4] == ("nnUNetv2_train", str(ids[name]), "2d", "1")
    assert train.command[5] == "nnUNetTrainerLopsided_5epochs_softtargets_seed2"
    assert train.needs == (f"complete/{name}",)
    assert not [name for name in jobs if name.startswith(("share/", "audit/")) and "completed" in name]


def test_arms_with_fewer_repetitions() -> None:
    """And an arm that shares a trainer and a teacher with another is no job twice."""
    found = study(CHANGED.replace("ignored: true", "ignored: true, repetitions: 1"), "repetitions: 2\n")
    assert [run.name for run in runs_of(found) if "full" not in run.name] == [
        "mets-size50-s0-2d-plain-r1",
        "mets-size50-s0-2d-plain-r2",
        "mets-size50-s0-2d-oracle-r1",
        "mets-size50-s0-2d-again-r1",
        "mets-size50-s0-2d-again-r2",
    ]
    names = [job.name for job in expand(found, choose_ids(found, {}))]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "option", ["-f", "-c", "-d", "-tr", "-p", "-pl", "-o", "--seed", "--rate", "--folds", "--threshold"]
)
def test_an_option_that_changes_the_result_changes_the_outcome(option: str) -> None:
    command = ["nnUNetv2_predict", "-i", "images", option, "1", "-npp", "1", "-device", "cpu"]
    other = [word if word != "1" else "2" for word in command]
    other[-3:] = command[-3:]
    assert not same_outcome(command, other)
    assert same_outcome(command, [*command[:5], "-npp", "8", "-device", "cuda"])


def test_an_option_more_or_less_changes_the_outcome() -> None:
    command = ["nnUNetv2_train", "800", "2d", "0", "-tr", "A", "-device", "cpu"]
    assert not same_outcome(command, [*command, "--npz"])
    assert not same_outcome([*command, "-f", "0"], [*command, "-f", "0", "1"])
    assert same_outcome([*command, "-np", "2", "4"], command)
