"""A folder made ready for a study."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import read_json, write_json
from nnunet_lopsided.study.folder import StudyFolder
from nnunet_lopsided.study.jobs import trainer_of_command
from nnunet_lopsided.study.preparation import plan_jobs, prepare
from nnunet_lopsided.study.schema import Study
from nnunet_lopsided.study.study_file import study_of_text

FILES = ("dataset.json", "splits_final.json", "imagesTr/tr0_0000.nii.gz", "labelsTs/ts0.nii.gz")
TEXT = """
name: small
datasets:
  - {name: mets, folder: DATA}
censoring: [none, {mode: size, rate: 0.5}]
configurations: [2d]
arms:
  - {name: plain, trainer: nnUNetTrainer}
device: cpu
"""


@pytest.fixture
def text(raw_dataset_folder: Callable[..., Path]) -> str:
    return TEXT.replace("DATA", str(raw_dataset_folder()))


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path / "out")


def study(text: str) -> Study:
    return study_of_text(text, "study", Path("/"))


def done(folder: StudyFolder, job: str, command: list[str]) -> None:
    folder.marker(job).parent.mkdir(parents=True, exist_ok=True)
    write_json(folder.marker(job), {"command": command, "seconds": 1, "attempts": 1, "host": "here"})


def test_what_is_written(text: str, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_raw", "/mine")
    jobs = prepare(study(text), text, folder)
    assert folder.jobs() == jobs
    assert folder.study_file.read_text() == text
    assert folder.ids() == {"mets": 800, "mets-size50-s0": 801}
    linked = folder.path / "nnUNet_raw" / "Dataset800_mets"
    assert sorted(p.name for p in (linked / "imagesTr").iterdir()) == [f"tr{i}_0000.nii.gz" for i in range(5)]
    assert [p.name for p in (linked / "labelsTs").iterdir()] == ["ts0.nii.gz"]
    assert all(p.is_symlink() for p in (linked / "imagesTr").iterdir())
    assert os.environ["nnUNet_raw"] == "/mine"
    splits = read_json(folder.path / "nnUNet_preprocessed" / "Dataset800_mets" / "splits_final.json")
    assert sorted(case for fold in splits for case in fold["val"]) == [f"tr{i}" for i in range(5)]
    assert [len(fold["train"]) for fold in splits] == [4] * 5
    assert prepare(study(text), text, folder) == jobs  # and again


def test_the_datasets_own_folds(text: str, folder: StudyFolder, tmp_path: Path) -> None:
    source = next((tmp_path / "data").iterdir())
    own = [{"train": ["tr0", "tr1", "tr2"], "val": ["tr3", "tr4"]}]
    write_json(source / "splits_final.json", own)
    (source / "cases.csv").write_text("case,patient\n" + "".join(f"tr{i},p{i // 2}\n" for i in range(5)))
    prepare(study(text), text, folder)
    assert read_json(folder.path / "nnUNet_preprocessed" / "Dataset800_mets" / "splits_final.json") == own
    assert (folder.path / "nnUNet_raw" / "Dataset800_mets" / "cases.csv").is_file()


def test_folds_keep_patients_together(text: str, folder: StudyFolder, tmp_path: Path) -> None:
    source = next((tmp_path / "data").iterdir())
    (source / "cases.csv").write_text("case,patient\n" + "".join(f"tr{i},p{i // 2}\n" for i in range(5)))
    prepare(study(text), text, folder)
    splits = read_json(folder.path / "nnUNet_preprocessed" / "Dataset800_mets" / "splits_final.json")
    assert sorted(sorted(fold["val"]) for fold in splits) == [["tr0", "tr1"], ["tr2", "tr3"], ["tr4"]]


def test_folds_keep_the_patients_of_the_regex_together(text: str, folder: StudyFolder) -> None:
    # Of tr0 to tr4 the patients are tr0 and, for all others, tr.
    by_regex = text + "evaluation: {cases: [validation], patients_regex: '(tr0?)'}\nsplits: 2\n"
    prepare(study(by_regex), by_regex, folder)
    splits = read_json(folder.path / "nnUNet_preprocessed" / "Dataset800_mets" / "splits_final.json")
    assert sorted(sorted(fold["val"]) for fold in splits) == [["tr0"], ["tr1", "tr2", "tr3", "tr4"]]


def test_a_dataset_by_its_id(
    text: str, folder: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nnunet_paths: Path
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "data"))
    by_id = study(TEXT.replace("folder: DATA", "id: 501"))
    prepare(by_id, text, folder)
    assert (folder.path / "nnUNet_raw" / "Dataset800_mets" / "imagesTr").is_dir()
    with pytest.raises(InputError, match="dataset 502 not found below nnUNet_raw="):
        prepare(study(TEXT.replace("folder: DATA", "id: 502")), text, StudyFolder(tmp_path / "other"))


def test_a_changed_job_is_done_again_and_the_others_are_not(text: str, folder: StudyFolder) -> None:
    jobs = {job.name: job for job in prepare(study(text), text, folder)}
    for job in jobs.values():
        done(folder, job.name, list(job.command))
    changed = text + "evaluation: {label: lesion}\n"
    prepare(study(changed), changed, folder)
    waiting = {name for name, state in folder.states(folder.jobs()).items() if state != "done"}
    assert waiting == {name for name in jobs if name.startswith("evaluate/")}


def test_a_study_that_grows(text: str, folder: StudyFolder) -> None:
    for job in prepare(study(text), text, folder):
        done(folder, job.name, list(job.command))
    grown = text.replace("[none, ", "[none, {mode: stochastic, rate: 0.5}, ")
    prepare(study(grown), grown, folder)
    assert folder.ids() == {"mets": 800, "mets-size50-s0": 801, "mets-stochastic50-s0": 802}
    waiting = {name for name, state in folder.states(folder.jobs()).items() if state != "done"}
    assert len(waiting) == 5
    assert all("stochastic50-s0" in name for name in waiting)


def test_data_that_trainings_have_used_do_not_change(text: str, folder: StudyFolder) -> None:
    jobs = prepare(study(text), text, folder)
    for job in jobs:
        done(folder, job.name, list(job.command))
    planner = text + "planner: nnUNetPlannerResEncM\n"
    plan_jobs(study(planner), folder)  # nothing trained yet: may be done again
    folder.attempts("train/mets-full-2d-plain-r1-f0").mkdir(parents=True)
    more = text.replace("device: cpu", "device: cuda\nresources: {cpus: 3, gpus: 2}")
    prepare(study(more), more, folder)  # another machine
    assert set(folder.states(folder.jobs()).values()) == {"done"}
    with pytest.raises(InputError, match=r"job preprocess/mets differs from what was run .* choose another folder"):
        plan_jobs(study(planner), folder)


@pytest.mark.parametrize(("n_test", "found"), [(0, "no imagesTs"), (2, "no label for ts1")])
def test_a_test_set_is_needed(
    raw_dataset_folder: Callable[..., Path], folder: StudyFolder, n_test: int, found: str
) -> None:
    source = raw_dataset_folder(n_test=n_test, name="Dataset502_Other")
    if n_test:
        (source / "labelsTs" / "ts1.nii.gz").unlink()
    text = TEXT.replace("DATA", str(source))
    with pytest.raises(InputError, match=rf"dataset mets: expected labels in labelsTs .*, found {found}; or"):
        prepare(study(text), text, folder)
    assert not folder.path.exists()
    validation = text + "evaluation: {cases: [validation]}\n"
    prepare(study(validation), validation, folder)


def test_other_folders_are_left_alone(text: str, folder: StudyFolder) -> None:
    folder.path.mkdir()
    (folder.path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is not empty and holds no study; choose another folder with -o"):
        prepare(study(text), text, folder)
    assert [p.name for p in folder.path.iterdir()] == ["thesis.tex"]


def test_another_dataset_of_the_same_name(
    text: str, folder: StudyFolder, raw_dataset_folder: Callable[..., Path]
) -> None:
    prepare(study(text), text, folder)
    other = TEXT.replace("DATA", str(raw_dataset_folder(name="Dataset502_Other")))
    with pytest.raises(InputError, match=r"holds a study whose dataset mets is .*Small, now it is .*Other"):
        prepare(study(other), other, folder)


def test_another_study(text: str, folder: StudyFolder) -> None:
    prepare(study(text), text, folder)
    other = text.replace("name: small", "name: large")
    with pytest.raises(InputError, match="holds the study small, not large; choose another folder with -o"):
        prepare(study(other), other, folder)


def test_an_id_in_use(text: str, folder: StudyFolder) -> None:
    prepare(study(text), text, folder)
    (folder.path / "nnUNet_results" / "Dataset802_Mine").mkdir()
    grown = text.replace("[none, ", "[none, {mode: stochastic, rate: 0.5}, ")
    with pytest.raises(InputError, match=r"dataset id 802 for mets-stochastic50-s0 is in use .*Dataset802_Mine; give"):
        prepare(study(grown), grown, folder)


def test_a_missing_folder(folder: StudyFolder) -> None:
    with pytest.raises(InputError, match="dataset mets: folder not found: /nowhere"):
        prepare(study(TEXT.replace("DATA", "/nowhere")), TEXT, folder)
    assert not folder.path.exists()
    assert json.dumps(folder.ids()) == "{}"


def test_what_depends_on_a_changed_job_is_done_again(text: str, folder: StudyFolder) -> None:
    jobs = prepare(study(text), text, folder)
    for job in jobs:
        done(folder, job.name, list(job.command))
    other = text.replace("trainer: nnUNetTrainer}", "trainer: nnUNetTrainer_5epochs}")
    kinds = {job.kind for job in prepare(study(other), other, folder) if not folder.marker(job.name).is_file()}
    assert kinds == {"train", "predict", "evaluate"}


def test_trainings_of_an_earlier_version_without_seeds_go_on_without(text: str, folder: StudyFolder) -> None:
    text = text.replace("trainer: nnUNetTrainer}", "trainer: nnUNetTrainerLopsided}")
    earlier = text + "seeds: false\n"

    def trainers(text: str) -> set[str]:
        jobs = prepare(study(text), text, folder)
        return {trainer_of_command(job.command) for job in jobs if job.kind == "train"}

    assert trainers(text) == {"nnUNetTrainerLopsided_seed1"}  # nothing has been trained
    assert trainers(earlier) == {"nnUNetTrainerLopsided"}
    jobs = folder.jobs()
    (begun, *_) = (job for job in jobs if job.kind == "train")
    folder.attempts(begun.name).mkdir(parents=True)
    attempt = {"seconds": 1, "host": "here", "command": list(begun.command)}
    write_json(folder.attempts_file(begun.name), [attempt])
    assert trainers(text) == {"nnUNetTrainerLopsided"}
    folder.attempts_file(begun.name).unlink()
    done(folder, begun.name, list(begun.command))  # by a version that kept no commands of attempts
    assert trainers(text) == {"nnUNetTrainerLopsided"}
    assert folder.marker(begun.name).is_file()
    assert trainers(text + "seeds: true\n") == {"nnUNetTrainerLopsided_seed1"}
    assert not folder.marker(begun.name).is_file()
    assert trainers(text) == {"nnUNetTrainerLopsided_seed1"}


def test_data_that_trainings_have_used_stay_whatever_the_arms_are_called(text: str, folder: StudyFolder) -> None:
    jobs = prepare(study(text), text, folder)
    for job in jobs:
        done(folder, job.name, list(job.command))
        folder.attempts(job.name).mkdir(parents=True, exist_ok=True)
    other = text.replace("name: plain", "name: renamed").replace("rate: 0.5", "rate: 0.5, seeds: [0]")
    prepare(study(other), other, folder)
    changed = other + "planner: nnUNetPlannerResEncM\n"
    with pytest.raises(InputError, match="trainings have used it"):
        prepare(study(changed), changed, folder)


def refused(text: str, folder: StudyFolder, message: str) -> None:
    """By what both ``plan`` and ``run`` begin with, in one line with file and key, before anything is written."""
    with pytest.raises(InputError) as error:
        plan_jobs(study(text), folder, "mine.yaml")
    assert str(error.value) == f"mine.yaml: {message}"
    assert not folder.path.exists()


def test_a_dataset_that_is_not_there_or_broken(text: str, folder: StudyFolder, nnunet_paths: Path) -> None:
    source = next((nnunet_paths / "data").iterdir())
    other = TEXT.replace("DATA", "/nowhere")
    refused(other, folder, "datasets[0].folder: dataset mets: folder not found: /nowhere")
    by_id = TEXT.replace("folder: DATA", "id: 502")
    root = nnunet_paths / "nnUNet_raw"
    refused(by_id, folder, f"datasets[0].id: dataset 502 not found below nnUNet_raw={root}")
    label, description = source / "labelsTr" / "tr1.nii.gz", source / "dataset.json"
    label.rename(source / "tr1.nii.gz")
    refused(text, folder, f"datasets[0].folder: Dataset501_Small, case tr1: label not found: {label}")
    (source / "tr1.nii.gz").rename(label)
    content = description.read_text()
    description.write_text(content.replace(', "lesion": 1', ""))
    refused(text, folder, f"datasets[0].folder: dataset mets: {description} has no foreground label")
    description.write_text(content.replace('"lesion": 1', '"lesion": "one"'))
    found = "{'background': 0, 'lesion': 'one'}"
    refused(
        text, folder, f"datasets[0].folder: {description}: expected integer label values in 'labels', found {found}"
    )
    description.unlink()
    refused(text, folder, f"datasets[0].folder: file not found: {description}")


def test_how_many_folds(text: str, folder: StudyFolder) -> None:
    two = text + "splits: 2\n"
    prepare(study(two), two, folder)
    path = folder.path / "nnUNet_preprocessed" / "Dataset800_mets" / "splits_final.json"
    assert [sorted(fold) for fold in read_json(path)] == [["train", "val"]] * 2
    assert sorted(read_json(path)[0]["val"]) == read_json(path)[1]["train"]
    with pytest.raises(
        InputError, match=r"^dataset mets: .*splits_final\.json holds other folds; choose another folder"
    ):
        prepare(study(text), text, folder)
    assert folder.study_file.read_text() == two  # refused before anything is written


def test_folds_of_other_cases(text: str, folder: StudyFolder, tmp_path: Path) -> None:
    source = next((tmp_path / "data").iterdir())
    splits = source / "splits_final.json"
    write_json(splits, [{"train": ["tr0", "tr9"], "val": ["tr1"]}])
    refused(text, folder, f"datasets[0].folder: {splits}: fold 0 names tr9, which is none of the training cases")
    write_json(splits, {"train": []})
    refused(text, folder, f"datasets[0].folder: {splits}: expected a list, found a mapping")


def test_folds_that_leak(text: str, folder: StudyFolder, tmp_path: Path) -> None:
    splits = next((tmp_path / "data").iterdir()) / "splits_final.json"
    write_json(splits, [{"train": ["tr0", "tr1"], "val": ["tr2"]}, {"train": ["tr0", "tr1"], "val": ["tr1"]}])
    refused(text, folder, f"datasets[0].folder: {splits}: fold 1 trains on case tr1 and validates on it")


def test_case_names_that_lead_elsewhere(text: str, folder: StudyFolder, tmp_path: Path) -> None:
    source = next((tmp_path / "data").iterdir())
    content = json.loads((source / "dataset.json").read_text())
    for name in ("../../Dataset501_Whole/labelsTr/a", "/tmp/a", "a/b", ".."):
        images = {"images": ["imagesTr/tr0_0000.nii.gz"], "label": "labelsTr/tr0.nii.gz"}
        (source / "dataset.json").write_text(json.dumps({**content, "dataset": {name: images}}))
        with pytest.raises(InputError, match=r"^study: datasets\[0\].folder: .*dataset\.json"):
            plan_jobs(study(text), folder)
        assert not folder.path.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
@pytest.mark.parametrize("name", FILES)
def test_pipes_are_not_waited_for(text: str, folder: StudyFolder, tmp_path: Path, name: str) -> None:
    path = next((tmp_path / "data").iterdir()) / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(InputError):
        plan_jobs(study(text), folder)


def test_more_patients_than_there_are(text: str, folder: StudyFolder, tmp_path: Path) -> None:
    more = text + "patients: [all, 6]\n"
    refused(more, folder, "patients[1]: dataset mets: expected at most its 5 training patients, found 6")
    fewer = text + "patients: [1]\n"
    refused(fewer, folder, "patients[0]: dataset mets: expected at least 2 for the study's folds, found 1")
    folds = text + "folds: [0, 3]\npatients: [4, 3]\n"
    refused(folds, folder, "patients[1]: dataset mets: expected at least 4 for the study's folds, found 3")
    plan_jobs(study(text + "folds: [all]\npatients: [1]\n"), folder)
    phantom = TEXT.replace("folder: DATA", "phantom: {train: 4}") + "patients: [4, 5]\n"
    refused(phantom, folder, "patients[1]: dataset mets: expected at most its 4 training patients, found 5")
    (next((tmp_path / "data").iterdir()) / "cases.csv").write_text(
        "case,patient\n" + "".join(f"tr{i},p{i // 2}\n" for i in range(5))
    )
    plan_jobs(study(text + "patients: [3]\n"), folder)
    more = text + "patients: [4]\n"
    refused(more, folder, "patients[0]: dataset mets: expected at most its 3 training patients, found 4")
    by_name = text + "patients: [3]\nevaluation: {patients_regex: '^t[rs]0?'}\n"
    refused(by_name, folder, "patients[0]: dataset mets: expected at most its 2 training patients, found 3")
    one = text + "evaluation: {patients_regex: '^..'}\n"
    refused(one, folder, "folds: dataset mets: expected training cases of at least 2 patients, found 1")


def test_a_label_that_is_not_in_the_dataset(text: str, folder: StudyFolder) -> None:
    expected = "evaluation.label: dataset mets: expected one of lesion, found lesions. Did you mean lesion?"
    label = "evaluation: {label: lesions}\n"
    refused(text + label, folder, expected)
    refused(TEXT.replace("folder: DATA", "phantom: {}") + label, folder, expected)
    plan_jobs(study(text + "evaluation: {label: lesion}\n"), folder)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "patients regex must be a regular expression, got '(': missing ), unterminated subpattern at position 0"),
        ("tr[0-3]", "patients regex 'tr[0-3]' does not match case tr4"),
        ("tr.", "patients regex 'tr.' does not match case ts0"),
    ],
)
def test_a_patients_regex_that_does_not_fit(text: str, folder: StudyFolder, pattern: str, message: str) -> None:
    refused(text + f"evaluation: {{patients_regex: '{pattern}'}}\n", folder, f"evaluation.patients_regex: {message}")
    if pattern == "tr.":  # test cases are not evaluated
        plan_jobs(study(text + f"evaluation: {{patients_regex: '{pattern}', cases: [validation]}}\n"), folder)


def test_the_same_of_a_phantom(folder: StudyFolder) -> None:
    phantom = TEXT.replace("folder: DATA", "phantom: {train: 5, test: 1}")
    message = "evaluation.patients_regex: patients regex 'phantom_0' does not match case phantom_test_000"
    refused(phantom + "evaluation: {patients_regex: phantom_0}\n", folder, message)
    plan_jobs(study(phantom + "evaluation: {patients_regex: 'phantom_(.*)'}\n"), folder)


def test_folds_that_nnunet_would_draw_at_random(text: str, folder: StudyFolder) -> None:
    other = text + "folds: [7]\n"
    with pytest.raises(InputError, match="dataset mets: expected folds from 0 to 4, found 7"):
        prepare(study(other), other, folder)
