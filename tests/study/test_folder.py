"""What lies in a study's folder, whole and damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.study.folder import StudyFolder, of_last_command
from nnunet_lopsided.study.jobs import Job

JOB = Job("train/one", ("nnUNetv2_train", "800", "2d", "0"), needs=("share/one",), gpus=1, fold_folder="results/fold_0")


def test_jobs_are_read_as_they_were_written(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    write_json(folder.jobs_file, [JOB.as_json()])
    assert folder.jobs() == (JOB,)


@pytest.mark.parametrize(
    ("file", "content", "read", "message"),
    [
        ("jobs.json", "", StudyFolder.jobs, "not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        ("jobs.json", "{}", StudyFolder.jobs, "expected a list, found a mapping"),
        ("jobs.json", "[1]", StudyFolder.jobs, "[0]: expected a mapping, found 1"),
        ("jobs.json", '[{"name": "a"}]', StudyFolder.jobs, "[0]: expected the key command, found name"),
        (
            "jobs.json",
            json.dumps([JOB.as_json() | {"command": "nnUNetv2_train"}]),
            StudyFolder.jobs,
            '[0].command: expected a list, found "nnUNetv2_train"',
        ),
        (
            "jobs.json",
            json.dumps([JOB.as_json() | {"colour": "red"}]),
            StudyFolder.jobs,
            "expected jobs as this version writes them: Job.__init__() got an unexpected keyword argument 'colour'",
        ),
        ("dataset_ids.json", "", StudyFolder.ids, "not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        ("dataset_ids.json", "[]", StudyFolder.ids, "expected a mapping, found a list"),
        ("dataset_ids.json", '{"ids": {}}', StudyFolder.sources, "expected the key sources, found ids"),
        (
            "dataset_ids.json",
            '{"ids": {"mets": "800"}, "sources": {}}',
            StudyFolder.ids,
            'ids.mets: expected a whole number, found "800"',
        ),
        ("done/train/one.json", "[]", lambda f: f.record("train/one"), "expected a mapping, found a list"),
        (
            "attempts/train/one/attempts.json",
            '[{"host": "here"}]',
            lambda f: f.known_attempts("train/one"),
            "[0]: expected the key seconds, found host",
        ),
    ],
)
def test_damaged_files(
    tmp_path: Path, file: str, content: str, read: Callable[[StudyFolder], Any], message: str
) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    with pytest.raises(InputError) as error:
        read(StudyFolder(tmp_path))
    assert str(error.value) == f"{path}: {message}"


def test_attempts_at_the_last_command() -> None:
    train = ["nnUNetv2_train", "800", "2d", "0", "-tr", "A"]
    attempts: list[Any] = [
        {"seconds": 1, "command": [*train[:-1], "B"]},
        {"seconds": 2, "command": train},
        {"seconds": 4, "command": [*train, "-device", "cuda"]},
        {"seconds": 8, "command": [*train, "--npz"]},  # the same training, and then its probabilities
    ]
    assert [a["seconds"] for a in of_last_command(attempts)] == [2, 4, 8]
    assert [a["seconds"] for a in of_last_command(attempts[:1])] == [1]
    assert of_last_command([]) == []
    unnoted: list[Any] = [{"seconds": 1}, {"seconds": 2}]
    assert of_last_command(unnoted) == unnoted
    assert [a["seconds"] for a in of_last_command([*unnoted, *attempts[:2]])] == [1, 2, 2]


def test_what_needs_a_blocked_job_is_blocked_too(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    jobs = [Job(f"train/{name}", ("true",), needs=needs) for name, needs in (("a", ()), ("b", ("train/a",)))]
    jobs += [Job("predict/b", ("true",), needs=("train/b",)), Job("predict/c", ("true",))]
    folder.failure_file("train/a").parent.mkdir(parents=True)
    write_json(folder.failure_file("train/a"), {"exit_code": 1})
    assert list(folder.states(jobs).values()) == ["failed", "blocked", "blocked", "waiting"]
