"""Two rounds: which networks judge which case, what is trained anew, and what an interrupted command goes on with."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

from nnunet_lopsided.completion.completing import complete
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import read_image
from nnunet_lopsided.lesions import find_lesions
from tests.completion.conftest import TRAINER, World, edit_labels, edit_predictions, finished

FIRST, FINAL, SOURCE = "Dataset522_CutCompletedRound1", "Dataset521_CutCompleted", "Dataset511_Cut"
WHOLE = "Dataset501_Whole"
SOFT = f"{TRAINER}_softtargets"


def test_the_second_round_learns_from_the_first_and_is_out_of_fold(world: World) -> None:
    made = finished(complete(511, 521, "2.5d", rounds=2, train=True))
    assert world.calls == [
        (SOURCE, "0", TRAINER),
        (SOURCE, "1", TRAINER),
        (FIRST, "0", SOFT),
        (FIRST, "1", SOFT),
        (FINAL, "all", SOFT),
    ]
    assert made.folder.name == FINAL
    for i, case in enumerate(("p00", "p01")):
        with np.load(world.fold(FIRST, SOFT, str(i)) / "validation" / f"{case}.npz") as arrays:
            p = arrays["probabilities"][1]
        belief = np.asarray(read_image(made.folder / "beliefsTr" / f"{case}.nii.gz").array, np.float32)
        # Of five candidates, three lesions that the labels lack and two false ones, some are believed.
        candidates = find_lesions(belief > 0, (1.0, 1.0, 1.0))
        assert len(candidates)
        for voxels in candidates.voxels_by_id():
            own, of_fold = belief.reshape(-1)[voxels], p.reshape(-1)[voxels]
            np.testing.assert_allclose(own / own.max(), of_fold / of_fold.max(), rtol=1e-6)
    splits = json.loads((world.root / "nnUNet_preprocessed" / FIRST / "splits_final.json").read_text())
    assert splits == json.loads((world.root / "nnUNet_preprocessed" / SOURCE / "splits_final.json").read_text())


def test_the_record_says_what_each_round_found(world: World) -> None:
    complete(511, 521, "2.5d", rounds=2)
    record = world.record(FINAL)
    rounds = record["rounds"]
    assert isinstance(rounds, list)
    assert [one["trained_on"] for one in rounds] == [SOURCE, FIRST]
    assert [(one["n_candidates"], one["n_explained"]) for one in rounds] == [(50, 30), (50, 30)]
    assert rounds[:1] == world.record(FIRST)["rounds"]
    assert all(rounds[1][key] == record[key] for key in rounds[1] if key != "trained_on")
    settings = record["settings"]
    assert isinstance(settings, dict)
    assert (settings["rounds"], settings["first_round"], settings["source_dataset"]) == (2, FIRST, SOURCE)


def test_a_completion_in_one_round_is_gone_on_from(world: World) -> None:
    """And the variant of the second round needs nothing of the first's: its links lead to the source."""
    complete(511, 521, "2.5d")
    made = finished(complete(511, 530, "2.5d", rounds=2, first_round=521))
    assert made.folder.name == "Dataset530_CutCompleted"
    assert world.calls == [(SOURCE, "0", TRAINER), (SOURCE, "1", TRAINER), (FINAL, "0", SOFT), (FINAL, "1", SOFT)]
    shutil.rmtree(world.raw / FINAL)
    labels = list((made.folder / "labelsTr").iterdir())
    assert len(labels) == 10
    assert all(path.read_bytes() == (world.raw / SOURCE / "labelsTr" / path.name).read_bytes() for path in labels)
    listed = json.loads((made.folder / "dataset.json").read_text())["dataset"]
    assert all((made.folder / image).is_file() for case in listed.values() for image in case["images"])


def test_again_is_nothing_to_do(world: World) -> None:
    complete(511, 521, "2.5d", rounds=2, train=True)
    before, calls = world.contents(), len(world.calls)
    complete(511, 521, "2.5d", rounds=2, train=True)
    assert (world.contents(), len(world.calls)) == (before, calls)
    # The first round stays when the second is made anew: trainings have learned from it.
    first = (world.raw / FIRST / "completion.json").stat().st_mtime_ns
    final = (world.raw / FINAL / "completion.json").stat().st_mtime_ns
    complete(511, 521, "2.5d", rounds=2, train=True, overwrite=True)
    assert (world.raw / FIRST / "completion.json").stat().st_mtime_ns == first
    assert (world.raw / FINAL / "completion.json").stat().st_mtime_ns > final
    assert (world.contents(), len(world.calls)) == (before, calls)


def test_trainings_on_another_completion_are_not_taken_for_these(world: World) -> None:
    """Networks of the first round were trained anew, so their soft targets are others than the second learned from."""
    complete(511, 521, "2.5d", rounds=2, train=True)
    edit_predictions(world, lambda p: p * np.float32(0.9))
    with pytest.raises(InputError, match=f"{FIRST} was completed with other predictions .* --overwrite"):
        complete(511, 521, "2.5d", rounds=2, train=True)
    stale = world.fold(FIRST, SOFT, "0")
    with pytest.raises(InputError, match=f"{stale} was trained on {FIRST} as an earlier completion made it; move"):
        complete(511, 521, "2.5d", rounds=2, train=True, overwrite=True)
    shutil.rmtree(stale.parent)
    stale = world.fold(FINAL, SOFT, "all")
    with pytest.raises(InputError, match=f"{stale} was trained on {FINAL} as an earlier"):
        complete(511, 521, "2.5d", rounds=2, train=True, overwrite=True)
    shutil.rmtree(stale.parent)
    complete(511, 521, "2.5d", rounds=2, train=True, overwrite=True)


def test_a_training_by_hand_is_believed(world: World) -> None:
    """The command that was printed leaves no note."""
    complete(511, 521, "2.5d", train=True)
    (world.fold(FINAL, SOFT, "all") / "lopsided_completion.json").unlink()
    calls = len(world.calls)
    complete(511, 521, "2.5d", train=True)
    assert len(world.calls) == calls


def test_what_is_believed(world: World) -> None:
    """The 30 missing lesions score much as the 30 annotated ones, and false ones less."""
    made = finished(complete(511, 521, "2.5d"))
    record = world.record(FINAL)
    assert (record["missed_per_annotated"], made.changes_nothing) == (pytest.approx(23 / 26), False)
    with (made.folder / "completed_lesions.csv").open() as file:
        rows = list(csv.DictReader(file))
    beliefs = [float(row["belief"]) for row in rows]
    assert len(rows) == 50
    assert made.estimate == pytest.approx(sum(beliefs))
    assert made.final_command[:4] == ("nnUNetv2_train", FINAL, "2.5d", "all")
    assert made.final_command[5] == SOFT
    for case in ("p00", "p01"):
        belief = np.asarray(read_image(made.folder / "beliefsTr" / f"{case}.nii.gz").array, np.float32)
        highest = sorted(belief.reshape(-1)[v].max() for v in find_lesions(belief > 0, (1.0, 1.0, 1.0)).voxels_by_id())
        own = sorted(float(row["belief"]) for row in rows if row["case"] == case and float(row["belief"]) > 0)
        np.testing.assert_allclose(highest, own, rtol=1e-6)


def test_whole_labels_stay_as_they_are(world: World) -> None:
    """Of candidates that score less than any annotated lesion none is believed, and the trainer is the one it was."""
    edit_labels(world, SOURCE, lambda name, label: read_image(world.raw / WHOLE / "labelsTr" / name).array)
    made = finished(complete(511, 521, "2.5d", train=True))
    record = world.record(FINAL)
    assert (record["n_candidates"], record["estimated_missed_lesions"], made.changes_nothing) == (20, 0.0, True)
    for path in (made.folder / "beliefsTr").iterdir():
        assert not read_image(path).array.any()
    assert made.final_command[5] == made.prediction[6] == TRAINER
    assert world.calls[-1] == (FINAL, "all", TRAINER)
    assert "No candidate is believed" in made.page.read_text(encoding="utf-8")
    before, calls = world.contents(), len(world.calls)
    complete(511, 521, "2.5d", train=True)
    assert (world.contents(), len(world.calls)) == (before, calls)


def test_after_a_round_that_believes_in_nothing_there_is_no_second(world: World) -> None:
    """It would learn from the same labels, without looking back."""
    edit_labels(world, SOURCE, lambda name, label: read_image(world.raw / WHOLE / "labelsTr" / name).array)
    made = finished(complete(511, 521, "2.5d", rounds=2, train=True))
    assert world.calls == [(SOURCE, "0", TRAINER), (SOURCE, "1", TRAINER), (FINAL, "all", TRAINER)]
    rounds = world.record(FINAL)["rounds"]
    assert isinstance(rounds, list)
    assert ([one["trained_on"] for one in rounds], made.n_first, made.changes_nothing) == ([SOURCE], None, True)
    before, calls = world.contents(), len(world.calls)
    complete(511, 521, "2.5d", rounds=2, train=True)
    assert (world.contents(), len(world.calls)) == (before, calls)
