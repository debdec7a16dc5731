"""The report of a study of which something is missing, from evaluations whose numbers are known."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnunet_lopsided.evaluation import evaluate_folder
from nnunet_lopsided.evaluation.writing import write_results
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.files.tables import read_table
from nnunet_lopsided.images import Geometry, Image, write_image
from nnunet_lopsided.study.expansion import expand
from nnunet_lopsided.study.folder import StudyFolder
from nnunet_lopsided.study.report import write_report
from nnunet_lopsided.study.results import Results
from nnunet_lopsided.study.runs import choose_ids
from nnunet_lopsided.study.study_file import read_study
from nnunet_lopsided.study.study_page import line_points
from tests.evaluation.report.conftest import assert_self_contained

STUDY = """
name: small
datasets:
  - {name: mets, folder: data}
censoring: [none, {mode: size, rate: 0.25}, {mode: size, rate: 0.5}]
configurations: [2d]
arms:
  - {name: plain, trainer: nnUNetTrainer}
  - {name: the_other, trainer: nnUNetTrainer_5epochs}
repetitions: 2
evaluation: {cases: [test, validation]}
device: cpu
"""
N_CASES, LARGE, SMALL = 4, (slice(0, 2),) * 3, (slice(4, 5),) * 3
GEOMETRY = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))


def label(lesions: Sequence[tuple[slice, ...]]) -> NDArray[Any]:
    array = np.zeros((6, 6, 6), np.uint8)
    for place in lesions:
        array[place] = 1
    return array


class Made:
    """A study's folder with the outcome of some runs."""

    def __init__(self, path: Path) -> None:
        self.folder = StudyFolder(path)

    def begin(self) -> Made:
        path = self.folder.path
        path.mkdir()
        self.folder.study_file.write_text(STUDY)
        study = read_study(self.folder.study_file)
        ids = choose_ids(study, {})
        self.jobs = expand(study, ids)
        write_json(self.folder.jobs_file, [job.as_json() for job in self.jobs])
        write_json(self.folder.ids_file, {"ids": ids, "sources": {}})
        for i in range(N_CASES):
            for kind, lesions in (("full", [LARGE, SMALL]), ("censored", [LARGE])):
                (path / kind).mkdir(exist_ok=True)
                write_image(path / kind / f"c{i}.nii.gz", Image(label(lesions), GEOMETRY))
        return self

    def done(self, job: str, seconds: float = 36, attempts: int = 1) -> None:
        command = next(list(j.command) for j in self.jobs if j.name == job)
        marker, folder = self.folder.marker(job), self.folder.attempts(job)
        for place in (marker.parent, folder):
            place.mkdir(parents=True, exist_ok=True)
        write_json(marker, {"command": command, "seconds": seconds, "attempts": attempts, "host": "here"})
        write_json(folder / "attempts.json", [{"seconds": seconds / attempts, "host": "here"}] * attempts)

    def run(self, name: str, found: Sequence[str], cases: str = "test", attempts: int = 1) -> None:
        """A run that finds in case k the lesions named by ``found[k]``: l for the large, s for the small one."""
        predictions = self.folder.path / "predictions" / name
        predictions.mkdir(parents=True, exist_ok=True)
        for i, lesions in enumerate(found):
            places = [place for letter, place in (("l", LARGE), ("s", SMALL)) if letter in lesions]
            np.save(predictions / f"c{i}.npy", (0.75 * label(places)).astype(np.float32))
        censored = self.folder.path / "censored" if cases == "validation" else None
        result = evaluate_folder(self.folder.path / "full", predictions, censored_references=censored, n_replicates=100)
        target = self.folder.path / "evaluations" / name / cases
        target.parent.mkdir(parents=True, exist_ok=True)
        write_results(result, target)
        self.done(f"train/{name}-f0", attempts=attempts)
        self.done(f"evaluate/{name}-{cases}")


@pytest.fixture(scope="module")
def some_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that :func:`made` copies: evaluating takes longer than the report."""
    found = Made(tmp_path_factory.mktemp("study") / "out").begin()
    found.run("mets-full-2d-plain-r1", ["ls", "ls", "ls", "ls"])
    found.run("mets-full-2d-plain-r2", ["ls", "ls", "ls", "l"])
    found.run("mets-size50-s0-2d-plain-r1", ["l", "l", "l", ""])
    found.run("mets-size50-s0-2d-the_other-r1", ["ls", "l", "l", "l"], attempts=2)
    found.run("mets-size50-s0-2d-the_other-r1", ["ls", "l", "l", "l"], "validation", attempts=2)
    failed = "train/mets-full-2d-the_other-r1-f0"
    found.folder.attempts(failed).mkdir(parents=True)
    write_json(found.folder.attempts(failed) / "failed.json", {})
    found.folder.log(failed).parent.mkdir(parents=True)
    found.folder.log(failed).write_text("epoch 3\nRuntimeError: <out of memory>\n")
    return found.folder.path


@pytest.fixture
def made(tmp_path: Path, some_runs: Path) -> Made:
    shutil.copytree(some_runs, tmp_path / "out")
    return Made(tmp_path / "out")


def rows(made: Made, name: str) -> list[dict[str, str]]:
    return read_table(made.folder.path / "report" / f"{name}.csv")


def test_the_table_of_arms(made: Made) -> None:
    write_report(made.folder)
    table = {(r["labels"], r["arm"]): r for r in rows(made, "arms") if r["cases"] == "test"}
    full = table["full", "plain"]
    assert (full["runs"], full["runs_expected"]) == ("2", "2")
    # 8 and 7 of 8 lesions: the mean, and the runs as ends.
    assert [float(full[f"max_sensitivity{end}"]) for end in ("", "_low", "_high")] == [0.9375, 0.875, 1.0]
    assert full["max_sensitivity_relative"] == "1"
    assert full["low_and_high"] == "range of 2 runs"
    censored = table["size50", "plain"]
    assert float(censored["max_sensitivity"]) == 0.375
    assert float(censored["max_sensitivity_relative"]) == pytest.approx(0.4)
    assert float(censored["map"]) == 0.375  # no false positive: what is found, at precision 1
    assert float(censored["tp_dice"]) == 1
    assert censored["low_and_high"] == "95% interval"
    missing = table["full", "the_other"]
    assert (missing["runs"], missing["max_sensitivity"], missing["max_sensitivity_relative"]) == ("0", "", "")


def test_lesions_that_labels_kept_and_lacked(made: Made) -> None:
    write_report(made.folder)
    (row,) = (r for r in rows(made, "arms") if (r["cases"], r["runs"]) == ("validation", "1"))
    assert [row[n] for n in ("kept_found", "kept", "censored_found", "censored")] == ["4", "4", "1", "4"]


def test_the_table_of_runs(made: Made) -> None:
    write_report(made.folder)
    table = {(r["run"], r["cases"]): r for r in rows(made, "runs")}
    assert len(table) == 5
    run = table["mets-size50-s0-2d-the_other-r1", "test"]
    assert [run[n] for n in ("mode", "rate", "censoring_seed", "patients", "repetition")] == [
        "size",
        "0.5",
        "0",
        "",
        "1",
    ]
    assert [run[n] for n in ("trainer", "n_cases", "reference_lesions")] == ["nnUNetTrainer_5epochs", "4", "8"]
    assert [run[n] for n in ("training_hours", "training_attempts")] == ["0.0100", "2"]
    summary = json.loads((made.folder.path / "evaluations" / run["run"] / "test" / "summary.json").read_text())
    # Four patients are too few for an interval.
    assert summary["metrics"]["map_ci95_bootstrap"] is None
    assert (run["map_low"], run["map_high"]) == ("", "")
    # Without a false positive there is no Hanley-McNeil interval.
    assert summary["metrics"]["map_ci95_hanley_mcneil"] is None
    assert (run["map_hanley_mcneil_low"], run["map_hanley_mcneil_high"]) == ("", "")


def test_magnified_test_cases_are_said_to_be(made: Made) -> None:
    made.folder.study_file.write_text(STUDY.replace("validation]}", "validation], magnify: [2, 1.5]}"))
    write_report(made.folder)
    assert {(r["cases"], r["magnify"]) for r in rows(made, "runs")} == {("test", "1.5 2"), ("validation", "")}
    page = (made.folder.path / "report" / "index.html").read_text()
    assert "Numbers are of the test cases, predicted as they are and magnified 1.5 and 2 times." in page
    made.folder.study_file.write_text(STUDY)
    write_report(made.folder)
    assert {r["magnify"] for r in rows(made, "runs")} == {""}
    assert "are and magnified" not in (made.folder.path / "report" / "index.html").read_text()


def test_differences_from_the_baseline(made: Made) -> None:
    write_report(made.folder)
    table = {
        (r["run"].removeprefix("mets-"), r["against"]): r for r in rows(made, "differences") if r["metric"] == "map"
    }
    assert {key: (r["baseline"].removeprefix("mets-"), float(r["difference"])) for key, r in table.items()} == {
        # Each with the baseline of its own repetition.
        ("size50-s0-2d-plain-r1", "full labels"): ("full-2d-plain-r1", -0.625),
        ("size50-s0-2d-the_other-r1", "full labels"): ("full-2d-plain-r1", -0.375),
        ("size50-s0-2d-the_other-r1", "the same labels"): ("size50-s0-2d-plain-r1", 0.25),
    }
    for row in table.values():  # four patients are too few for an interval
        assert (row["low"], row["high"]) == ("", "")


def test_the_table_in_the_papers_form(made: Made) -> None:
    write_report(made.folder)
    text = (made.folder.path / "report" / "arms.tex").read_text()
    assert "full & plain & 2 & 93.8 (87.5--100.0) & 100 & 93.8 (87.5--100.0) & 100 & 100.0" in text
    assert "\nfull & the\\_other & 0 & -- & -- & -- & -- & -- & -- \\\\\n" in text
    # A single run of four patients: too few for an interval.
    assert "\nsize50 & plain & 1 & 37.5 & 40 & 37.5 & 40 & 100.0 & 100 \\\\\n" in text
    assert text.count("\\begin{tabular}{llrrrrrrr}") == text.count("\\end{tabular}") == 1


def test_the_page(made: Made) -> None:
    page = write_report(made.folder)
    parsed = assert_self_contained(page.read_text())
    text = " ".join(" ".join(parsed.text).split())
    log = made.folder.log("train/mets-full-2d-the_other-r1-f0")
    assert f"failed : train/mets-full-2d-the_other-r1-f0: RuntimeError: <out of memory> (see {log})" in text
    assert "3 jobs blocked by a failed job" in text
    assert "jobs not yet run" in text
    assert "size: share of lesions missing in the labels" in text
    assert "Lesion voxels by probability" in text
    assert "By diameter, Wilson (lesions as independent)" in text
    cells = [row for table in parsed.tables.values() for row in table]
    assert ["mets", "size50", "2d", "the_other", "validation", "4 / 4 (1.00)", "1 / 4 (0.25)"] in cells
    (row,) = (row for row in cells if row[:3] == ["size50", "plain", "1 / 2"])
    assert [row[3], row[5], row[6], row[8], row[9], row[11]] == ["0.375", "40%", "0.375", "40%", "1.000", "100%"]
    assert ["mets", "size50", "2d", "the_other", "0.010", "2"] in cells
    assert any(row[0].startswith("nnUNet_results=nnUNet_results/repetition_2 nnUNetv2_train 800 2d 0") for row in cells)
    assert "censoring: [none, {mode: size, rate: 0.25}" in text


def test_the_page_is_written_again(made: Made) -> None:
    first = write_report(made.folder).read_bytes()
    assert write_report(made.folder).read_bytes() == first
    assert not [p.name for p in made.folder.path.iterdir() if p.name.startswith(".")]


def test_before_anything_is_done(tmp_path: Path) -> None:
    made = Made(tmp_path / "out").begin()
    page = write_report(made.folder)
    parsed = assert_self_contained(page.read_text())
    assert f"{len(made.jobs)} jobs not yet run" in " ".join(parsed.text)
    assert rows(made, "runs") == []


def test_an_evaluation_that_cannot_be_read_is_named(made: Made) -> None:
    name = "mets-size50-s0-2d-plain-r1"
    (made.folder.path / "evaluations" / name / "test" / "summary.json").write_text("{")
    results = Results(read_study(made.folder.study_file), made.folder)
    assert len(results.evaluated) == 4
    assert len(results.unreadable) == 1
    assert name in results.unreadable[0]
    assert f"cannot be read: {results.unreadable[0]}" in write_report(made.folder).read_text()


def test_lines_over_the_rate_are_of_their_arm(made: Made) -> None:
    results = Results(read_study(made.folder.study_file), made.folder)
    cells = results.cells("test")
    lines = line_points(cells, ["the_other", "plain"], {"full": 0.0, "size25": 0.25, "size50": 0.5}, "max_sensitivity")
    assert list(lines) == ["the_other", "plain"]
    assert [(p.x, p.value) for p in lines["the_other"]] == [(0.5, 0.625)]
    assert [(p.x, p.value) for p in lines["plain"]] == [(0.0, 0.9375), (0.5, 0.375)]
    assert lines["plain"][0].interval == (0.875, 1.0)  # smallest and largest of two runs


def test_no_difference_is_set_off(made: Made) -> None:
    text = write_report(made.folder).read_text()
    (section,) = (part for part in text.split("<section>") if "Differences from the baseline</h2>" in part)
    assert "-0.625" in section
    assert not re.search(r"<(b|strong|em|i|mark)\b", section)
    reason = (
        Results(read_study(made.folder.study_file), made.folder).differences[0].differences["map"].interval.undefined
    )
    assert reason is not None
    assert section.count(f'<span class="why">{reason}</span>') == 9  # three rows of three metrics
