"""Looking back: what is doubted by hand, its way to the criterion, and when a training does it."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from numpy.typing import NDArray

from nnunet_lopsided.belief import LEAST_ANNOTATED
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.losses import LopsidedDiceLoss
from nnunet_lopsided.trainers import pasting
from nnunet_lopsided.trainers.looking_back import CalledInCase, Doubt, SparseMap, doubt_of
from nnunet_lopsided.trainers.looking_times import extent_of_lesions, knows_lesions_at, looks, share_shown
from nnunet_lopsided.trainers.soft_targets import ImageWithBelief
from tests.conftest import TinyDataset, without_progress_pictures
from tests.trainers.test_trainers import build, log_of, one_process, run_epoch  # noqa: F401 - a fixture always used

NAME = "nnUNetTrainerLopsided_from50_2epochs_1iters"


# ---- what is doubted


def case(explained: list[float], unexplained: list[float], mask: Any, n_labelled: int = 0) -> CalledInCase:
    candidates = find_lesions(np.asarray(mask, bool), (1.0, 1.0, 1.0))
    assert len(candidates) == len(unexplained)
    return CalledInCase(np.array(explained, float), np.array(unexplained, float), candidates, n_labelled)


def apart(n: int) -> NDArray[np.bool_]:
    """A slice with n voxels in its second row, in columns 3, 7, 11, ..."""
    mask = np.zeros((1, 5, 4 * n + 3), bool)
    mask[0, 1, 3 : 4 * n : 4] = True
    return mask


def test_doubt_by_hand() -> None:
    """Twenty annotated lesions of score 3, ten candidates of it and two of score 1: 10 / 20 missed for each."""
    found = doubt_of({"a": case([3.0] * 20, [3.0] * 10, apart(10)), "b": case([], [1.0, 1.0], apart(2))})
    assert (found.n_annotated, found.n_candidates, found.missed_per_annotated) == (20, 12, 0.5)
    assert found.expected == pytest.approx(10)  # each of score 3 for certain, none of score 1
    assert list(found.maps) == ["a"]
    doubted = found.maps["a"][slice(0, 1), slice(0, 1), slice(0, 5), slice(0, 43)]
    expected = np.zeros((5, 43), np.uint8)
    expected[0:3, 2:41] = 255  # grown by a voxel; between two of them, one voxel stays
    expected[:, 5:41:4] = 0
    assert doubted[0, 0].tolist() == expected.tolist()


def test_where_two_candidates_meet_the_likelier_counts() -> None:
    mask = np.zeros((1, 3, 7), bool)
    mask[0, 1, [1, 3]] = True  # their surroundings share column 2
    known = [1.0] * 20 + [2.0] * 20
    found = doubt_of({"a": case(known, [1.0, 2.0], mask), "b": case([], [1.0] * 19, apart(19))})
    row = found.maps["a"][slice(0, 1), slice(0, 1), slice(1, 2), slice(0, 7)][0, 0, 0]
    # 1 missed for 20 annotated: the one of score 2 for certain, of score 1 one in twenty.
    assert row.tolist() == [13, 13, 255, 255, 255, 0, 0]


def test_whole_labels_leave_nothing_to_doubt() -> None:
    mask = np.zeros((1, 3, 9), bool)
    mask[0, 1, 1::2] = True
    found = doubt_of({"a": case(list(np.linspace(2, 9, 40)), [0.2, 0.3, 0.3, 0.5], mask)})
    assert (found.missed_per_annotated, found.expected, found.maps) == (0, 0, {})


def test_too_few_say_nothing() -> None:
    found = doubt_of({"a": case([3.0] * 7, [3.0], np.ones((1, 1, 1)))})
    assert (found.missed_per_annotated, found.expected, found.maps) == (None, 0, {})
    nothing = doubt_of({"a": case([], [], np.zeros((1, 1, 1)))})
    assert (nothing.missed_per_annotated, nothing.maps) == (None, {})


@pytest.mark.parametrize(
    ("annotated", "expected"),
    [
        ([9.0] * 6 + [1.0] * 2, 8 / 8),  # all eight must be in a tail
        ([9.0] * 10 + [1.0] * 9, 2 / 10),  # of nineteen, ten
        ([9.0] * 9 + [1.0] * 10, 8 / 19),  # nine are fewer than half of them
        ([9.0] * 10 + [1.0] * (LEAST_ANNOTATED - 10), 8 / 20),  # twenty, as everywhere
    ],
)
def test_where_few_are_called_half_of_them_say_how_many_are_missing(annotated: list[float], expected: float) -> None:
    unexplained = [9.0] * 2 + [1.0] * 6 + [0.5] * 5
    found = doubt_of({"a": case(annotated, unexplained, apart(13))})
    assert found.missed_per_annotated == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(-3, 6)] * 3), st.tuples(*[st.integers(1, 8)] * 3))
def test_a_crop_is_that_of_the_dense_map(seed: int, start: tuple[int, ...], size: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.integers(0, 256, (1, 7, 6, 8), np.uint8) * (rng.random((1, 7, 6, 8)) < 0.2)
    coordinates = np.stack(np.nonzero(dense[0])).astype(np.int32)
    sparse = SparseMap(coordinates, dense[0][tuple(coordinates)])
    box = [[a, a + n] for a, n in zip(start, size, strict=True)]
    if any(a >= n or b <= 0 for (a, b), n in zip(box, dense.shape[1:], strict=True)):
        return  # nnU-Net's loader never asks for a patch beside the volume
    image = rng.normal(size=(2, 7, 6, 8)).astype(np.float32)
    np.testing.assert_array_equal(
        crop_and_pad_nd(ImageWithBelief(image, sparse, 1), box, 0),
        crop_and_pad_nd(ImageWithBelief(image, dense, 1), box, 0),
    )


def test_a_record_can_be_read_without_running_a_program(tmp_path: Path) -> None:
    doubt = Doubt(3, 2, 0.5, 1.25, {"a": SparseMap(np.array([[0], [1]], np.int32), np.array([7], np.uint8))})
    torch.save(doubt.as_record(), tmp_path / "record.pth")
    again = Doubt.of_record(torch.load(tmp_path / "record.pth", weights_only=True))
    assert again.maps["a"][slice(0, 1), slice(0, 1), slice(0, 2)].tolist() == [[[0, 7]]]
    assert (again.n_annotated, again.missed_per_annotated) == (3, 0.5)
    assert "7" not in repr(again.maps)  # which nnU-Net writes to debug.json


# ---- in a training


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the predictor is made to say of every voxel outside of the labels: a lesion in the lower left corner."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    made: dict[str, Any] = {"cases": 0}

    def predict(self: Any, data: torch.Tensor) -> torch.Tensor:
        made["cases"] += 1
        logits = torch.zeros(2, *data.shape[1:])
        logits[1] = -9
        logits[1, :, -6:-3, 3:6] = 9
        return logits

    monkeypatch.setattr(nnUNetPredictor, "predict_sliding_window_return_logits", predict)
    monkeypatch.setattr(pasting, "lesion_share", lambda voxels: 0.01)
    return made


def recipe_loss(trainer: Any, gamma: float) -> LopsidedDiceLoss:
    """Where lesions are sparse, as all are here."""
    batch_dice = trainer.configuration_manager.batch_dice
    return LopsidedDiceLoss(1, 1, gamma=gamma, batch_dice=batch_dice, reduction="lesion_mean")


def halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every candidate is a missed lesion by one half."""
    from nnunet_lopsided.trainers import looking_back

    monkeypatch.setattr(looking_back, "missed_per_annotated", lambda explained, unexplained, least: 1.0)
    monkeypatch.setattr(looking_back, "belief", lambda explained, unexplained, rho: np.full(len(unexplained), 0.5))


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres", "2.5d"])
def test_doubt_reaches_the_criterion(
    empty_results: Any, monkeypatch: pytest.MonkeyPatch, seen: dict[str, Any], configuration: str
) -> None:
    without_progress_pictures(monkeypatch)
    halved(monkeypatch)
    trainer = build(empty_results, NAME, configuration)
    trainer.on_train_start()
    assert trainer._looks_back
    run_epoch(trainer)
    assert (seen["cases"], trainer.criterion.gamma) == (0, 0)
    assert trainer._split_target(next(trainer.dataloader_train)["target"])[1] == {}
    trainer.on_train_epoch_start()
    assert (seen["cases"], trainer.criterion.gamma) == (4, 4)  # every training case once
    assert trainer.network.training
    if configuration == "2.5d":
        assert trainer._network_25d.centre_slice_only
    doubts = []
    for _ in range(30):
        batch = next(trainer.dataloader_train)
        target, inputs = trainer._split_target(trainer._supervised(batch)["target"])
        finest, doubt = (x[0] if isinstance(x, list) else x for x in (target, inputs["doubt"]))
        assert doubt.shape == finest.shape
        doubts.append(doubt.amax())
    assert float(max(doubts)) == pytest.approx(128 / 255, abs=1e-4)
    assert np.isfinite(trainer.train_step(batch)["loss"])
    assert "about" in log_of(trainer)
    assert "missed lesions" in log_of(trainer)
    assert log_of(trainer).count("pasting: ") == 1  # though the loaders were made twice


def test_the_loss_of_a_step_takes_the_doubt(tiny: Any, monkeypatch: pytest.MonkeyPatch, seen: dict[str, Any]) -> None:
    halved(monkeypatch)
    trainer = build(tiny, "nnUNetTrainerLopsided_from0_2epochs_1iters")
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    trainer.loss.weights = (1.0, 0.0)
    batch = next(b for b in iter(lambda: next(trainer.dataloader_train), None) if b["target"][0][:, 1:].any())
    with torch.no_grad():
        logits, target, doubt = trainer.network(batch["data"])[0], batch["target"][0][:, :1], batch["target"][0][:, 1:]
        loss = recipe_loss(trainer, gamma=4)
        doubting, trusting = loss(logits, target, doubt=doubt), loss(logits, target, doubt=torch.zeros_like(doubt))
    assert float(trainer.train_step(batch)["loss"]) == pytest.approx(float(doubting), rel=1e-5)
    assert float(doubting) < float(trusting)


def test_validation_is_against_the_labels(tiny: Any, monkeypatch: pytest.MonkeyPatch, seen: dict[str, Any]) -> None:
    halved(monkeypatch)
    trainer = build(tiny, "nnUNetTrainerLopsided_from0_2epochs_1iters")
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    assert trainer.criterion.gamma == 4
    trainer.on_validation_epoch_start()
    logits, target = torch.randn(2, 2, 4, 4), torch.zeros(2, 1, 4, 4)
    plain = recipe_loss(trainer, gamma=0)
    torch.testing.assert_close(trainer.criterion(logits, target), plain(logits, target))
    trainer.on_train_epoch_start()
    assert trainer.criterion.gamma == 4


@pytest.mark.parametrize(("ignored", "expected"), [(None, (2, 1)), (2, (1, 1))])
def test_what_lies_on_ignored_voxels_is_neither(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, ignored: int | None, expected: tuple[int, int]
) -> None:
    """A component on a lesion of label 1, one on label 2, one on nothing."""
    label = np.zeros((1, 1, 4, 9), np.int16)
    label[0, 0, 1, 1], label[0, 0, 1, 4] = 1, 2
    data = SimpleNamespace(load_case=lambda case: (np.zeros((1, 1, 4, 9), np.float32), label, None, {}))
    logits = torch.full((3, 1, 4, 9), -9.0)
    logits[0], logits[1, 0, 1, 1::3] = 0, 9
    trainer = build(tiny)
    monkeypatch.setattr(type(trainer.label_manager), "ignore_label", ignored)
    found = trainer._called_in("a", data, SimpleNamespace(predict_sliding_window_return_logits=lambda _: logits))
    assert (len(found.explained), len(found.unexplained)) == expected
    assert found.n_labelled == expected[0]
    assert found.candidates.voxels.tolist() == [9 + 7]


def test_a_model_that_is_handed_on_names_no_case(
    empty_results: Any, monkeypatch: pytest.MonkeyPatch, seen: dict[str, Any]
) -> None:
    halved(monkeypatch)
    trainer = build(empty_results, "nnUNetTrainerLopsided_from0_1epochs_1iters")
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    assert trainer.my_init_kwargs["lopsided"]["candidates"]["maps"].keys() == set(trainer.do_split()[0])
    trainer.current_epoch = 1
    trainer.on_train_end()
    final = Path(trainer.output_folder) / "checkpoint_final.pth"
    assert "candidates" not in torch.load(final, weights_only=False)["init_args"]["lopsided"]


@pytest.mark.parametrize(
    ("rho", "expected", "said"),
    [
        (None, 0.0, "fewer than 8 annotated ones say nothing, so background labels count fully"),
        (
            0.05,
            0.4,
            "hardly one scores as annotated ones do (0.05 missed for each), so background labels count fully; missed",
        ),
        (0.8, 12.3, "of which about 12 are missed lesions (0.80 missed for each annotated one); from now on"),
    ],
)
def test_what_the_log_says(tiny: Any, rho: float | None, expected: float, said: str) -> None:
    trainer = build(tiny, "nnUNetTrainerLopsided_from80_10epochs")
    trainer.current_epoch = 8
    trainer._say(Doubt(30, 9, rho, expected, {}))
    assert "looked back at 4 training cases: 30 annotated lesions and 9 candidates that no label explains" in log_of(
        trainer
    )
    assert said in log_of(trainer)


def test_a_look_that_says_nothing_is_no_warning_as_long_as_others_come(tiny: Any) -> None:
    trainer = build(tiny, "nnUNetTrainerLopsided_from10_10epochs")
    trainer.current_epoch = 2
    trainer._say(Doubt(3, 9, None, 0.0, {}))
    assert "fewer than 8 annotated ones say nothing; it looks again before epoch 5" in log_of(trainer)
    assert "WARNING" not in log_of(trainer)


def test_the_log_says_when_it_will_look(tiny: Any, seen: dict[str, Any]) -> None:
    trainer = build(tiny, "nnUNetTrainerLopsided_100epochs_100iters")
    trainer.configuration_manager.configuration["batch_size"] //= 2  # so that passes decide and not steps
    trainer.on_train_start()
    first = math.ceil(5 / trainer._passes)
    assert 2 < first < 10  # 200 steps are two epochs
    found = (
        f"looking back: first before epoch {first}, after {first * trainer._passes:.1f} passes over the training data"
    )
    assert f"{found}; again before: {2 * first}, " in log_of(trainer)


def gone_on(results: Any, name: str, first: Any) -> tuple[Any, str]:
    """A trainer that goes on after an epoch of another one, in its next epoch, and the checkpoint."""
    first.on_train_start()
    run_epoch(first)
    first.current_epoch -= 1  # as nnU-Net does when it saves at the end of an epoch
    path = str(Path(first.output_folder) / "checkpoint_latest.pth")
    first.save_checkpoint(path)
    second = build(results, name, resume=True)
    second.load_checkpoint(path)
    second.on_train_start()
    second.on_train_epoch_start()
    return second, path


def test_a_training_that_goes_on_doubts_the_same(
    empty_results: Any, monkeypatch: pytest.MonkeyPatch, seen: dict[str, Any]
) -> None:
    without_progress_pictures(monkeypatch)
    halved(monkeypatch)
    name = "nnUNetTrainerLopsided_from0_10epochs_1iters"
    first = build(empty_results, name)
    second, path = gone_on(empty_results, name, first)
    assert seen["cases"] == 4  # the first looked, the second did not
    for one, other in zip(first._doubt.maps.values(), second._doubt.maps.values(), strict=True):
        np.testing.assert_array_equal(one.coordinates, other.coordinates)
    assert second._split_target(next(second.dataloader_train)["target"])[1].keys() == {"doubt"}
    second.save_checkpoint(path)
    stored = torch.load(path, weights_only=False)["init_args"]["lopsided"]["candidates"]
    assert (stored["n_candidates"], stored["missed_per_annotated"]) == (4, 1)


@pytest.mark.parametrize(
    ("name", "looks", "gamma"),
    [
        ("nnUNetTrainerLopsided_10epochs_1iters", True, [0, 0, 0, 4]),
        ("nnUNetTrainerLopsided_g3_10epochs_1iters", True, [0, 0, 0, 3]),
        ("nnUNetTrainerLopsided_cemean_10epochs_1iters", True, [0, 0, 0, 2]),
        ("nnUNetTrainerLopsided_lookback_nopaste_celesion_10epochs_1iters", True, [0, 0, 0, 4]),
        ("nnUNetTrainerLopsided_nolookback_celesion_10epochs_1iters", False, [0] * 7 + [2]),
        ("nnUNetTrainerLopsided_lookback_nopaste_10epochs_1iters", True, [0, 0, 0, 2]),
        ("nnUNetTrainerLopsided_nolookback_10epochs_1iters", False, [0] * 7 + [2]),
        ("nnUNetTrainerLopsided_nopaste_10epochs_1iters", False, [0, 2]),
        ("nnUNetTrainerLopsided_ema0p9_10epochs_1iters", False, [0] * 7 + [2]),
        ("nnUNetTrainerLopsided_g0_paste_10epochs_1iters", False, [0] * 10),
        ("nnUNetTrainerLopsidedDice_g2_paste_10epochs_1iters", False, [0, 2]),
    ],
)
def test_when(tiny: Any, seen: dict[str, Any], name: str, looks: bool, gamma: list[int]) -> None:
    trainer = build(tiny, name)
    trainer.on_train_start()
    assert trainer._looks_back == looks
    assert [trainer._weights_at(epoch)["gamma"] for epoch in range(len(gamma))] == gamma


# ---- where lesions are crowded it asks first


def asking(tiny: Any, monkeypatch: pytest.MonkeyPatch, name: str, n_candidates: int) -> tuple[Any, list[int]]:
    """A trainer of crowded lesions that calls 20 annotated ones, and in which epochs it asked."""
    monkeypatch.setattr(pasting, "lesion_share", lambda voxels: 0.2)
    trainer = build(tiny, name)
    asked: list[int] = []

    def called(self: Any) -> dict[str, CalledInCase]:
        asked.append(self.current_epoch)
        some = case([6.0] * 12 + [5.0] * 3, [9.0] * (n_candidates // 2), apart(n_candidates // 2))
        rest = n_candidates - n_candidates // 2
        more = case([0.5] * 5, [2.0] * rest + [1.9] * 30, apart(rest + 30))
        return {"a": some, "b": more}

    monkeypatch.setattr(type(trainer), "_called_in_training_cases", called)
    return trainer, asked


@pytest.mark.parametrize(
    ("name", "n_candidates", "asked", "gammas"),
    [
        ("nnUNetTrainerLopsided_3epochs_1iters", 6, [1], [0, 2, 2]),  # 6 of 15: .4
        ("nnUNetTrainerLopsided_3epochs_1iters", 5, [1], [0, 0, 0]),
        ("nnUNetTrainerLopsided_g1_from0_3epochs_1iters", 5, [0], [0, 0, 0]),
        ("nnUNetTrainerLopsided_g1_from0_3epochs_1iters", 7, [0], [1, 1, 1]),
        ("nnUNetTrainerLopsided_nolookback_3epochs_1iters", 0, [], [0, 2, 2]),  # does not ask
        ("nnUNetTrainerLopsided_ema0p9_3epochs_1iters", 0, [], [0, 2, 2]),  # the network is not the judge
        ("nnUNetTrainerLopsided_g0_3epochs_1iters", 0, [], [0, 0, 0]),  # nothing to ask for
    ],
)
def test_where_nothing_seems_missing_nothing_is_doubted(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, name: str, n_candidates: int, asked: list[int], gammas: list[float]
) -> None:
    trainer, when = asking(tiny, monkeypatch, name, n_candidates)
    trainer.on_train_start()
    assert not trainer._looks_back
    found = []
    for epoch in range(3):
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        found.append(trainer.criterion.gamma)
    assert (when, found) == (asked, gammas)
    said = "asked whether anything is missing: 20 calls on 0 annotated lesions"
    assert (said in log_of(trainer)) == bool(asked)
    if asked:
        doubted = "so background labels are doubted" if gammas[-1] else "nothing seems missing, so background labels"
        assert f"{n_candidates / 15:.2f} for each of these that score like one" in log_of(trainer)
        assert doubted in log_of(trainer)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nnUNetTrainerLopsided_1000epochs", 5),  # passes
        ("nnUNetTrainerLopsided_20epochs", 2),  # a tenth
        ("nnUNetTrainerLopsided_nolookback_1000epochs", 100),
        ("nnUNetTrainerLopsided_from20_1000epochs", 200),
    ],
)
def test_a_long_training_asks_before_omissions_are_known_by_heart(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, name: str, expected: int
) -> None:
    trainer, _ = asking(tiny, monkeypatch, name, 0)
    trainer._passes = 1.0
    trainer.on_train_start()
    assert trainer._doubts_at() == expected


def test_sparse_lesions_that_are_not_pasted_are_not_asked_for(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, when = asking(tiny, monkeypatch, "nnUNetTrainerLopsided_nopaste_from0_2epochs_1iters", 0)
    monkeypatch.setattr(pasting, "lesion_share", lambda voxels: 0.01)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    assert (when, trainer.criterion.gamma) == ([], 2)


@pytest.mark.parametrize(
    ("n_called", "n_labelled", "gamma"),
    [
        (7, 7, 2),  # too few
        (10, 21, 2),  # a fresh network calls whole images, or nothing
        (10, 20, 0),
    ],
)
def test_a_network_that_calls_few_annotated_lesions_cannot_tell(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, n_called: int, n_labelled: int, gamma: float
) -> None:
    trainer, _ = asking(tiny, monkeypatch, "nnUNetTrainerLopsided_from0_2epochs_1iters", 0)
    few = {"a": case([3.0] * n_called, [], np.zeros((1, 1, 1)), n_labelled)}
    monkeypatch.setattr(type(trainer), "_called_in_training_cases", lambda self: few)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    assert trainer.criterion.gamma == gamma
    said = f"{n_called} calls on {n_labelled} annotated lesions, too few to tell, so background labels are doubted"
    assert (said in log_of(trainer)) == bool(gamma)


def test_a_training_that_goes_on_knows_the_answer(empty_results: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    without_progress_pictures(monkeypatch)
    name = "nnUNetTrainerLopsided_from0_10epochs_1iters"
    first, when = asking(empty_results, monkeypatch, name, 0)
    second, _ = gone_on(empty_results, name, first)
    assert (when, second.criterion.gamma) == ([0], 0)


def test_a_training_of_before_it_asked_is_asked_when_it_goes_on(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, when = asking(tiny, monkeypatch, "nnUNetTrainerLopsided_from0_10epochs_1iters", 0)
    trainer.on_train_start()
    for epoch in (5, 6):
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
    assert (when, trainer.criterion.gamma) == ([5], 0)


# ---- when it looks


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("nnUNetTrainerLopsided_10epochs", [3, 5, 7]),
        ("nnUNetTrainerLopsided_4epochs", [2, 3]),
        ("nnUNetTrainerLopsided_1000epochs", [5, 10, 20, 40, 80, 160, 320, 500, 700]),
        ("nnUNetTrainerLopsided_from50_1epochs", []),
        ("nnUNetTrainerLopsided_from10_10epochs", [1, 2, 5, 7]),
        ("nnUNetTrainerLopsided_from60_10epochs", [6, 7]),
        ("nnUNetTrainerLopsided_from80_10epochs", [8]),
        ("nnUNetTrainerLopsided_from0_10epochs", [0, 2, 5, 7]),
    ],
)
def test_how_often(tiny: Any, monkeypatch: pytest.MonkeyPatch, name: str, looks: list[int]) -> None:
    trainer = build(tiny, name)
    trainer._passes = 1.0
    monkeypatch.setattr(type(trainer), "_lesions_are_pasted", True)
    monkeypatch.setattr(trainer, "_make_loaders_again", lambda: None)
    found: list[int] = []

    def look() -> dict[str, CalledInCase]:
        found.append(trainer.current_epoch)
        return {"a": case([3.0] * 20, [], np.zeros((1, 1, 1)))}

    monkeypatch.setattr(trainer, "_called_in_training_cases", look)
    trainer.initialize()
    for epoch in range(trainer.num_epochs):
        trainer.current_epoch = epoch
        if trainer._looks_now():
            trainer.on_train_epoch_start()
    assert found == looks


@pytest.mark.parametrize(
    ("passes", "steps", "n_epochs", "first"),
    [
        (1.0, 250, 1000, 5),
        (0.4, 250, 40, 12),  # 30%
        (0.01, 250, 1000, 300),
        (6.875, 80, 10, 3),
        (6.875, 80, 40, 3),
        (20.0, 80, 40, 3),  # 200 steps
        (50.0, 250, 1000, 1),
        (50.0, 250, 1, 1),
        (5 / 20.000000000000004, 80, 1000, 20),  # and not one later for what rounding adds
    ],
)
def test_first_after_so_many_passes_and_steps(passes: float, steps: int, n_epochs: int, first: int) -> None:
    assert knows_lesions_at(passes, steps, n_epochs) == first


@pytest.mark.parametrize(
    ("first", "n_epochs", "expected"),
    [
        (3, 10, [3, 5, 7]),
        (3, 40, [3, 6, 12, 20, 28]),
        (1, 1000, [1, 2, 4, 8, 16, 32, 64, 128, 256, 500, 700]),
        (31, 1000, [31, 62, 124, 248, 500, 700]),  # and not 496, too
        (3, 13, [3, 7, 10]),
        (8, 10, [8]),
        (0, 100, [0, 2, 4, 8, 16, 32, 50, 70]),
        (1, 1, [1]),
    ],
)
def test_looks_by_hand(first: int, n_epochs: int, expected: list[int]) -> None:
    assert looks(first, n_epochs) == expected


@pytest.mark.parametrize(
    ("patch", "shape", "extent", "expected"),
    [
        ((4, 8, 8), (4, 8, 8), None, 1),
        ((4, 8, 8), (4, 8, 32), None, 1 / 4),
        ((9, 9, 9), (4, 8, 32), None, 9 / 32),
        ((8, 8), (4, 8, 32), None, 1 / 16),  # a slice of four
        # Lesions in a corner of a large case. Of nine pairs of three places seven are at most one apart; of four pairs
        # of two places three are equal or the second is the one before.
        ((3, 3, 3), (100, 100, 100), (2, 3, 1), 0.33 * 7 / 9 + 0.67 * 27e-6),
        ((2, 2, 2), (100, 100, 100), (2, 2, 2), 0.33 * 27 / 64 + 0.67 * 8e-6),
        # A slice of the three that hold lesions, which it shows whole.
        ((16, 16), (12, 16, 16), (3, 6, 1), 0.33 / 3 + 0.67 / 12),
        ((16, 16), (2, 16, 16), (3, 6, 1), 0.33 / 2 + 0.67 / 2),  # no larger than the case
    ],
)
def test_what_a_patch_shows_by_hand(
    patch: tuple[int, ...], shape: tuple[int, ...], extent: tuple[int, ...] | None, expected: float
) -> None:
    assert share_shown(patch, shape, extent) == pytest.approx(expected)


def test_the_extent_of_lesions_is_that_of_all_labels_but_the_ignored() -> None:
    """With an ignore label nnU-Net keeps places of all that is annotated, background included."""
    locations: dict[int | tuple[int, ...], Any] = {
        (1, 2): [[0, 5, 1, 7]],
        (2,): np.array([[0, 3, 9, 7]]),
        (-1, 0, 1, 2): [[0, 0, 0, 0]],
        3: [],
    }
    extent = extent_of_lesions(locations)
    assert extent is not None
    assert extent.tolist() == [3, 9, 1]
    assert extent_of_lesions({1: []}) is None


@pytest.mark.parametrize(
    ("patch", "shape", "low", "high"),
    [
        ((32, 32, 32), (120, 100, 100), (10, 50, 40), (40, 80, 70)),  # an organ in a large image
        ((32, 32, 32), (60, 60, 60), (0, 0, 0), (60, 60, 60)),  # all of the image
        ((64, 64, 64), (40, 50, 60), (5, 5, 5), (35, 45, 55)),  # patches that hold the whole case
        ((48, 48), (16, 64, 64), (2, 8, 8), (14, 56, 56)),  # slices
    ],
)
def test_a_patch_shows_what_nnunet_cuts(
    patch: tuple[int, ...], shape: tuple[int, ...], low: tuple[int, ...], high: tuple[int, ...]
) -> None:
    """How often nnU-Net's own loader shows a place between twenty annotated voxels, each of these another lesion."""
    rng = np.random.default_rng(0)
    voxels = np.column_stack([np.zeros(20, int), rng.integers(low, high, (20, 3))])
    locations: dict[int | tuple[int, ...], Any] = {1: voxels}
    manager = SimpleNamespace(all_labels=[0, 1], has_ignore_label=False)
    loader = nnUNetDataLoader(SimpleNamespace(identifiers=["a"]), 2, patch, patch, manager)
    np.random.seed(0)  # noqa: NPY002 - what the loader draws from
    shown = 0
    for k in range(3000):
        first, end = loader.get_bbox(np.array(shape), k % 100 < 33, locations)
        shown += all(a <= v < b for a, v, b in zip(first, rng.integers(low, high), end, strict=True))
    # Passes are counted in dozens, so that a factor of 1.5 does little.
    extent = extent_of_lesions(locations)
    assert extent is not None
    assert 2 / 3 < share_shown(patch, shape, extent.tolist()) / (shown / 3000) < 3 / 2


@pytest.mark.parametrize(("configuration", "slices"), [("2d", 1), ("3d_fullres", None), ("2.5d", 1)])
def test_passes_of_a_training(tiny: Any, configuration: str, slices: int | None) -> None:
    """Of every patch as the loader cuts it, and a box of lesions as large as that of any case."""
    trainer = build(tiny, "nnUNetTrainerLopsided_1epochs_5iters", configuration)
    trainer.on_train_start()
    batch = next(trainer.dataloader_train)["data"]
    cases = trainer.do_split()[0]
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, cases)
    stored = [dataset.load_case(case) for case in cases]
    places = [np.asarray(properties["class_locations"][1])[:, 1:] for *_, properties in stored]
    box = np.max([np.ptp(voxels, axis=0) + 1 for voxels in places], axis=0)
    patch = [*([] if slices else [batch.shape[-3]]), *batch.shape[-2:]]
    shown = sum(share_shown(patch, data.shape[1:], box) for data, *_ in stored)
    assert trainer._passes_per_epoch() == pytest.approx(5 * len(batch) * shown / len(cases) ** 2)


def test_a_look_that_was_missed_is_made_up_for(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of a version that did not look back goes on with one that does."""
    trainer = build(tiny, "nnUNetTrainerLopsided_10epochs")
    monkeypatch.setattr(type(trainer), "_lesions_are_pasted", True)
    trainer._passes = 1.0
    trainer.current_epoch = 4
    assert trainer._looks_now()
    trainer._doubt = Doubt(20, 0, 0.0, 0.0, {})
    assert not trainer._looks_now()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nnUNetTrainerLopsided_lookback_g0", "with gamma 0, which doubts nothing"),
        ("nnUNetTrainerLopsided_lookback_softtargets", "together with _softtargets"),
        ("nnUNetTrainerLopsided_lookback_ema0p9", "together with _emaN, whose network is the judge"),
    ],
)
def test_what_cannot_look_back_is_refused(tiny: Any, name: str, why: str) -> None:
    with pytest.raises(InputError, match=f"{name}: _lookback cannot be used {why}"):
        build(tiny, name).on_train_start()


@pytest.mark.parametrize("kind", ["multi-class", "regions with ignore"])
def test_a_real_prediction(tiny_datasets: Any, tiny: TinyDataset, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Nothing in place of the predictor: a network that calls everything, whose one component a label explains."""
    monkeypatch.setattr(pasting, "lesion_share", lambda voxels: 0.01)
    trainer = build(tiny_datasets(kind), "nnUNetTrainerLopsided_from0_1epochs_1iters")
    trainer.on_train_start()
    for head in trainer.network.decoder.seg_layers:
        torch.nn.init.zeros_(head.weight)
        head.bias.data[:] = 5.0
        head.bias.data[0] = 5.0 if "regions" in kind else -5.0
    trainer.on_train_epoch_start()
    assert (trainer._doubt.n_annotated, trainer._doubt.n_candidates) == (4, 0)
    assert "fewer than 8 annotated ones say nothing" in log_of(trainer)
    assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])


@pytest.mark.parametrize(
    ("options", "share", "reduction"),
    [
        ("", 0.01, "lesion_mean"),
        ("_cemean", 0.01, "mean"),
        ("_nolookback", 0.01, "mean"),
        ("_nopaste_lookback", 0.01, "mean"),
        ("_g0", 0.01, "mean"),
        ("", 0.2, "mean"),  # crowded
        ("_celesion", 0.2, "lesion_mean"),
        ("_g0_celesion", 0.01, "lesion_mean"),
    ],
)
def test_cross_entropy_by_lesion_voxels_goes_with_pasting_and_looking_back(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, options: str, share: float, reduction: str
) -> None:
    monkeypatch.setattr(pasting, "lesion_share", lambda voxels: share)
    trainer = build(tiny, f"nnUNetTrainerLopsided{options}_2epochs_1iters")
    trainer.on_train_start()
    assert trainer.criterion.reduction == reduction
    run_epoch(trainer)
    assert ("divided by the lesion voxels" in log_of(trainer)) == (options == "" and share == 0.01)
