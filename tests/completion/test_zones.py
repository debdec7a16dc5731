"""Zones: what is added, ignored and left, with and without a reader, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_lopsided.audit.inputs import AuditInputs, patient_numbers
from nnunet_lopsided.audit.missed_by_size import InjectedLesions
from nnunet_lopsided.audit.sampled import read_sample
from nnunet_lopsided.commands.complete import main
from nnunet_lopsided.completion import zoning
from nnunet_lopsided.completion.completing import complete
from nnunet_lopsided.completion.zoning import SampleToRead, Zoning
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.images import read_image
from tests.completion.conftest import TRAINER, World, edit_labels, edit_predictions, finished

SOURCE, FINAL = "Dataset511_Cut", "Dataset521_CutCompleted"


def labels(folder: Path) -> dict[str, NDArray[np.int64]]:
    return {path.name: np.asarray(read_image(path).array, np.int64) for path in sorted((folder / "labelsTr").iterdir())}


def rows(world: World) -> list[dict[str, str]]:
    with (world.raw / FINAL / "completed_lesions.csv").open() as file:
        return list(csv.DictReader(file))


def audit_of(world: World) -> Path:
    (folder,) = world.results.glob(f"{SOURCE}/*/completion_*")
    return folder


def read_by_the_truth(world: World, path: Path, *, leave: int = 0) -> Path:
    """Decisions on what was drawn; the last ``leave`` of them are missing."""
    sample = read_sample(audit_of(world) / "sample", audit_of(world))
    whole = labels(world.raw / "Dataset501_Whole")
    lines = ["audit,case,candidate,decision\n"]
    for c in sample.drawn[: len(sample.drawn) - leave]:
        own = read_image(audit_of(world) / "maps" / f"{c.case}.nii.gz").array == c.number
        word = "accept" if whole[f"{c.case}.nii.gz"][own].any() else "reject"
        lines.append(f"{sample.audit.id},{c.case},{c.number},{word}\n")
    path.write_text("".join(lines))
    return path


def faint(p: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lesions called with p of .6 to .8, annotated or not, get .2 to .4, as the false ones have it."""
    return np.where((p > 0.55) & (p < 0.8), p - np.float32(0.4), p)


def test_zones_without_a_reader(world: World) -> None:
    """30 lesions are missing, half of them called as surely as the 20 false ones."""
    edit_predictions(world, faint)
    made = finished(complete(511, 521, "2.5d", zoning=Zoning()))
    record = world.record(FINAL)
    zone = [row["zone"] for row in rows(world)]
    assert (made.n_candidates, made.n_accepted, made.n_doubtful) == (
        50,
        zone.count("accepted"),
        zone.count("doubtful"),
    )
    assert made.n_accepted is not None
    assert 10 <= made.n_accepted <= 30
    assert zone.count("doubtful") > 0
    q = {name: [float(row["probability"]) for row in rows(world) if row["zone"] == name] for name in set(zone)}
    assert record["expected_precision"] == pytest.approx(np.mean(q["accepted"]), abs=1e-5)
    assert np.mean(q["accepted"]) >= 0.8
    assert min(q["accepted"]) >= max(q["doubtful"]) >= min(q["doubtful"]) >= 0.2
    assert record["estimated_missed_lesions"] == pytest.approx(sum(map(sum, q.values())), abs=1e-3)
    assert made.final_command[:6] == ("nnUNetv2_train", FINAL, "2.5d", "all", "-tr", TRAINER)
    content = json.loads((made.folder / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "lesion": 1, "ignore": 2}
    assert content["completed"].startswith("zones by nnunet-lopsided ")
    assert "without a reader" in content["completed"]
    page = made.page.read_text(encoding="utf-8")
    assert f"<b>{made.n_accepted} of 50 candidates are labels now, {made.n_doubtful} are ignored" in page


def test_what_was_annotated_stays_and_the_doubtful_grow_by_one_voxel(world: World) -> None:
    edit_predictions(world, faint)
    complete(511, 521, "2.5d", zoning=Zoning())
    source, final = labels(world.raw / SOURCE), labels(world.raw / FINAL)
    zone = {(row["case"], int(row["candidate"])): row["zone"] for row in rows(world)}
    structure = ndimage.generate_binary_structure(3, 2)
    grown_any = False
    for name, before in source.items():
        case = name.removesuffix(".nii.gz")
        numbers = np.asarray(read_image(audit_of(world) / "maps" / name).array)
        expected = before.copy()
        for number in np.unique(numbers[numbers > 0]).tolist():
            own = numbers == number
            if zone.get((case, number)) == "accepted":
                expected[own & (before == 0)] = 1
            if zone.get((case, number)) == "doubtful":
                grown = own | (ndimage.binary_dilation(own, structure) & (numbers == 0))
                grown_any |= grown.sum() > own.sum()
                expected[grown & (before == 0)] = 2
        np.testing.assert_array_equal(final[name], expected)
        assert (final[name][before == 1] == 1).all()
    assert grown_any


def test_whole_labels_are_left_as_they_are(world: World) -> None:
    whole = labels(world.raw / "Dataset501_Whole")
    edit_labels(world, SOURCE, lambda name, _: whole[name].astype(np.uint8))
    made = finished(complete(511, 521, "2.5d", zoning=Zoning()))
    assert (made.n_candidates, made.n_accepted, made.n_doubtful, made.estimate) == (20, 0, 0, 0)
    for name, label in labels(made.folder).items():
        np.testing.assert_array_equal(label, whole[name])
    assert "ignore" not in json.loads((made.folder / "dataset.json").read_text())["labels"]
    assert "none was changed" in made.page.read_text(encoding="utf-8")


@pytest.fixture
def injected(world: World, monkeypatch: pytest.MonkeyPatch) -> list[InjectedLesions]:
    """Networks that see every injected lesion, with a p from .55 to .95; what was asked for."""
    made: list[InjectedLesions] = []

    def inject_lesions(inputs: AuditInputs, *, rules: EvaluationRules, **_: object) -> InjectedLesions:
        assert rules.threshold == 0.03
        diameters, patients = np.tile([2.0, 4.0], 50), np.arange(100) % len(patient_numbers(inputs.cases))
        made.append(
            InjectedLesions(
                per_case=8,
                seed=0,
                diameter_mm=diameters,
                patient=patients,
                found_mm=diameters,
                found_score=np.linspace(0.55, 0.95, 100, dtype=np.float64),
                found_patient=patients,
            )
        )
        return made[-1]

    monkeypatch.setattr(zoning, "why_not_injected", lambda inputs: "")
    monkeypatch.setattr(zoning, "inject_lesions", inject_lesions)
    return made


def test_zones_with_injected_lesions(world: World, injected: list[InjectedLesions]) -> None:
    """They tell how many are missing; which ones, the audit's score does."""
    made = finished(complete(511, 521, "2.5d", zoning=Zoning(), n_workers=1))
    assert len(injected) == 1
    record = world.record(FINAL)
    assert record["estimated_by"] == "injected lesions"
    with (audit_of(world) / "audit.csv").open() as file:
        scores = {(r["case"], r["candidate"]): float(r["score"]) for r in csv.DictReader(file) if float(r["sqrt"]) > 0}
    probability = {(row["case"], row["candidate"]): float(row["probability"]) for row in rows(world)}
    assert probability == scores
    of = json.loads((audit_of(world) / "audit.json").read_text())["injected"]
    assert record["missed_per_annotated"] == pytest.approx(of["missed_lesions"] / 30)
    low, high = of["miss_rate_ci95_bootstrap"]
    assert record["missed_per_annotated_ci95"] == pytest.approx([low / (1 - low), high / (1 - high)])
    accepted = [probability[row["case"], row["candidate"]] for row in rows(world) if row["zone"] == "accepted"]
    assert min(accepted) >= 0.5
    assert 20 <= len(accepted) <= 35
    page = made.page.read_text(encoding="utf-8")
    assert f"is {of['miss_rate']:.2f} (95% interval {low:.2f} to {high:.2f}), by injected lesions." in page


def test_labels_that_are_nearly_whole_are_left_as_they_are(
    world: World, injected: list[InjectedLesions], capsys: pytest.CaptureFixture[str]
) -> None:
    """Four lesions of sixty are missing, and some of their candidates are as sure as the annotated ones."""
    whole = labels(world.raw / "Dataset501_Whole")

    def lacking_a_few(name: str, _: object) -> NDArray[np.uint8]:
        label = whole[name].astype(np.uint8)
        if name < "p04":
            numbers, _n = ndimage.label(label)
            label[numbers == 1] = 0
        return label

    edit_labels(world, SOURCE, lacking_a_few)
    made = finished(complete(511, 521, "2.5d", zoning=Zoning(), n_workers=1))
    of = json.loads((audit_of(world) / "audit.json").read_text())["injected"]
    assert 0 < of["miss_rate"] < 0.1
    assert (made.n_accepted, made.n_doubtful) == (0, 0)
    record = world.record(FINAL)
    assert record["nearly_whole"] is True
    assert record["estimated_missed_lesions"] == pytest.approx(sum(float(row["probability"]) for row in rows(world)))
    assert made.estimate == record["estimated_missed_lesions"]
    assert "Less than 10% of all lesions seem to be missing" in made.page.read_text(encoding="utf-8")
    assert made.nearly_whole
    assert main(["-d", "511", "-c", "2.5d", "-o", "521", "-np", "1"]) == 0
    assert "less than a tenth of all lesions seems to be missing" in capsys.readouterr().out


def test_a_sample_is_written_read_and_gone_on_from(world: World, tmp_path: Path) -> None:
    to_read = complete(511, 521, "2.5d", zoning=Zoning(sample=20, seed=4))
    assert to_read == SampleToRead(audit_of(world) / "sample" / "sample.html", 20, 50)
    assert to_read.page.is_file()
    assert not (world.raw / FINAL).exists()
    assert complete(511, 521, "2.5d", zoning=Zoning(sample=20, seed=4)) == to_read
    with pytest.raises(InputError, match="holds another sample, of 20 candidates drawn by seed 4; give its"):
        complete(511, 521, "2.5d", zoning=Zoning(sample=12))
    decisions = read_by_the_truth(world, tmp_path / "d.csv", leave=1)
    with pytest.raises(InputError, match="1 of the 20 sampled candidates have no decision"):
        complete(511, 521, "2.5d", zoning=Zoning(decisions=decisions))
    read_by_the_truth(world, decisions)
    made = finished(complete(511, 521, "2.5d", zoning=Zoning(sample=20, seed=4, decisions=decisions)))
    record = world.record(FINAL)
    ends = record["estimated_missed_lesions_ci95"]
    assert isinstance(ends, list)
    assert ends[0] <= 30 <= ends[1]
    read = [row for row in rows(world) if row["decided_by"] == "reader"]
    assert len(read) == 20
    assert {row["zone"] for row in read} == {"accepted", "background"}
    assert made.n_accepted is not None
    assert made.n_accepted > 20
    assert "after the reading of a sample" in json.loads((made.folder / "dataset.json").read_text())["completed"]
    assert (audit_of(world) / "estimate" / "estimate.html").is_file()
    with pytest.raises(InputError, match="was completed with other predictions or settings"):
        complete(511, 521, "2.5d", zoning=Zoning())


def test_the_truth_decides_on_the_sample_alone(world: World, tmp_path: Path) -> None:
    made = finished(complete(511, 521, "2.5d", zoning=Zoning(sample=20, truth=501)))
    assert [row["decided_by"] for row in rows(world)].count("reader") == 20
    before = labels(made.folder)
    decisions = read_by_the_truth(world, tmp_path / "d.csv")
    made = finished(complete(511, 522, "2.5d", name="Read", zoning=Zoning(sample=20, decisions=decisions)))
    for name, label in labels(made.folder).items():
        np.testing.assert_array_equal(label, before[name])


def test_decisions_on_other_predictions_are_refused(world: World, tmp_path: Path) -> None:
    complete(511, 521, "2.5d", zoning=Zoning(sample=20))
    decisions = read_by_the_truth(world, tmp_path / "d.csv")
    edit_predictions(world, lambda p: p * np.float32(0.9))
    with pytest.raises(InputError, match=r"d\.csv: these predictions have not been sampled yet"):
        complete(511, 521, "2.5d", zoning=Zoning(sample=20, decisions=decisions))


def test_networks_that_know_nothing_draw_no_zones(world: World) -> None:
    """All candidates score alike, lesion or not."""
    edit_predictions(world, lambda p: np.where(p > 0, np.float32(0.3), np.float32(0)))
    edit_labels(world, SOURCE, lambda _, label: np.zeros_like(label))
    with pytest.raises(InputError, match="no zones without a reader: the networks find 0 annotated lesions, of 20 ne"):
        complete(511, 521, "2.5d", zoning=Zoning())
    assert not (world.raw / FINAL).exists()


def test_weak_networks_draw_no_zones(world: World) -> None:
    """Labels of other cases, so that little of what is called is annotated; a reader may still be asked."""
    whole = labels(world.raw / "Dataset501_Whole")
    others = dict(zip(whole, [*whole][1:] + [*whole][:1], strict=True))
    edit_labels(world, SOURCE, lambda name, _: whole[others[name]].astype(np.uint8))
    with pytest.raises(InputError, match="no zones without a reader: on annotated lesions out of fold the models are"):
        complete(511, 521, "2.5d", zoning=Zoning())
    assert isinstance(complete(511, 521, "2.5d", zoning=Zoning(sample=20)), SampleToRead)


def test_two_rounds_and_zones(world: World) -> None:
    """The second round's networks say what is sure; the last training is the plain trainer's again."""
    made = finished(complete(511, 521, "2.5d", zoning=Zoning(), rounds=2, train=True))
    first = "Dataset522_CutCompletedRound1"
    rounds = world.record(FINAL)["rounds"]
    assert isinstance(rounds, list)
    assert [one["trained_on"] for one in rounds] == [SOURCE, first]
    assert world.calls[-1] == (FINAL, "all", TRAINER)
    assert made.n_first == 50
    source, final = labels(world.raw / SOURCE), labels(world.raw / FINAL)
    assert all((final[name][label == 1] == 1).all() for name, label in source.items())


def test_new_labels_are_shared_again(world: World) -> None:
    """A stale copy beside the images would be trained on without a word."""
    complete(511, 521, "2.5d", zoning=Zoning(precision=1.0))
    complete(511, 521, "2.5d", zoning=Zoning(precision=0.7), overwrite=True)
    for name, label in labels(world.raw / FINAL).items():
        shared = read_image(world.root / "nnUNet_preprocessed" / FINAL / "gt_segmentations" / name).array
        np.testing.assert_array_equal(shared, label)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--way soft --precision 0.9", "--precision is of zones; expected --way zones with it"),
        ("--way soft --doubtful 0.1", "--doubtful is of zones; expected --way zones with it"),
        ("--way soft --sample 60", "--sample is of zones"),
        ("--way zones --precision 0", "--precision must be above 0 and at most 1"),
        ("--way zones --doubtful 1.5", "--doubtful within 0 and 1"),
        ("--way zones --threshold 1", "the threshold must be within 0 and 1"),
        ("--sample 1", "--sample must be at least 2, got 1"),
        ("--truth 501", "expected --sample with it"),
        ("--decisions nowhere.csv", "--decisions: file not found: nowhere.csv"),
    ],
)
@pytest.mark.usefixtures("world")
def test_options_that_contradict_each_other(options: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-d", "511", "-c", "2.5d", "-o", "521", *options.split()]) == 2
    assert reason in capsys.readouterr().err


def test_what_the_command_says(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["-d", "511", "-c", "2.5d", "-o", "521", "--sample", "20"]
    assert main(command) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2] == f"20 of 50 candidates to read: decide on all of them in {audit_of(world)}/sample/sample.html"
    assert said[-1].startswith("then the same command with --decisions FILE")
    assert main([*command, "--decisions", str(read_by_the_truth(world, tmp_path / "d.csv"))]) == 0
    said = capsys.readouterr().out.splitlines()
    record = world.record(FINAL)
    words = f"({record['n_accepted']} are labels now, {record['n_doubtful']} to be ignored), about "
    assert words in said[-4]
    of_it = f"-d {FINAL} -c 2.5d -tr {TRAINER} -p nnUNetPlans -f all"
    assert said[-1] == f"predict with it: nnUNetv2_predict {of_it} -i IMAGES -o PREDICTED --save_probabilities"
    assert said[-2] == f"train on them: nnUNetv2_train {FINAL} 2.5d all -tr {TRAINER} -p nnUNetPlans"
