"""Two rounds: which networks judge which case, what is trained anew, and what an interrupted command goes on with."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from nnunet_lopsided.completion.completing import complete
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import read_image
from tests.completion.conftest import TRAINER, World, edit_predictions, finished

FIRST, FINAL, SOURCE = "Dataset522_CutCompletedRound1", "Dataset521_CutCompleted", "Dataset511_Cut"
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
        # Five candidates: three lesions that the labels lack, and two false ones.
        assert (belief > 0).any()
        np.testing.assert_allclose(belief[belief > 0], p[belief > 0], rtol=1e-6)
        first = np.asarray(read_image(world.raw / FIRST / "beliefsTr" / f"{case}.nii.gz").array, np.float32)
        np.testing.assert_allclose(belief, np.sqrt(first), rtol=1e-6)
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
