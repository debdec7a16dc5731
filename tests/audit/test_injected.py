"""Lesions injected into the images of an audit: what is written, used again and made anew, and what is told of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnunet_lopsided.audit.injected import inject_lesions
from nnunet_lopsided.audit.inputs import AuditedCase, AuditInputs, Model, find_inputs
from nnunet_lopsided.audit.missed_by_size import InjectedLesions
from nnunet_lopsided.commands.audit import main
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.files.locks import locked
from nnunet_lopsided.images import Geometry, Image, read_image, write_image
from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.nnunet import magnified
from nnunet_lopsided.nnunet.raw import Case
from tests.audit.conftest import N_CASES, SHAPE, TRAINER, Audited, add_specks, set_root

MODEL, RULES = Model(TRAINER, "nnUNetPlans", "2.5d"), EvaluationRules(threshold=0.03)
AUDIT = ["-d", "511", "-c", "2.5d", "--bootstrap", "0", "--shown", "0", "--magnify"]


@pytest.fixture
def made(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """What was predicted, by networks that see what is bright in the first channel."""
    audited.write_checkpoints()
    done: list[tuple[str, float]] = []

    class Network:
        def __init__(self, fold: Path, checkpoint: str, *_: object, of: magnified.OtherImages, **__: object) -> None:
            assert (checkpoint, of.what) == ("checkpoint_final.pth", "injected lesions")

        def predict(self, case: Case, factor: float, array: Path) -> None:
            done.append((case.name, factor))
            image = read_image(case.images[0]).array.astype(np.float32)
            p = np.clip((image - 110) / 30, 0, 1)
            np.savez_compressed(array, probabilities=np.stack([1 - p, p]))

    monkeypatch.setattr(magnified, "_Network", Network)
    return done


def injected(per_case: int = 8, seed: int = 0, n_workers: int = 2, magnify: Sequence[float] = ()) -> InjectedLesions:
    inputs = find_inputs(511, [MODEL], magnify=magnify, device="cpu")
    return inject_lesions(inputs, rules=RULES, device="cpu", per_case=per_case, seed=seed, n_workers=n_workers)


def test_the_command(audited: Audited, made: list[tuple[str, float]], capsys: pytest.CaptureFixture[str]) -> None:
    """It changes nothing else of the audit."""
    assert main([*AUDIT, "-o", "without", "--bootstrap", "100"]) == 0
    without = json.loads(Path("without/audit.json").read_text())
    assert without["injected"] is None
    capsys.readouterr()
    assert main([*AUDIT, "--seed", "0", "--inject", "6", "--bootstrap", "100"]) == 0
    printed = capsys.readouterr().out
    record = json.loads((audited.audit / "audit.json").read_text())
    of = record.pop("injected")
    assert record == {key: value for key, value in without.items() if key != "injected"}
    assert (audited.audit / "audit.csv").read_bytes() == Path("without/audit.csv").read_bytes()
    assert (of["seed"], of["per_case"], of["undefined"]) == (0, 6, None)
    assert 20 < of["lesions"] <= 6 * N_CASES
    rows = of["by_diameter"]
    assert sum(row["injected"] for row in rows) == of["lesions"]
    seen = [row for row in rows if row["missed_lesions"] is not None]
    told = [row for row in seen if row["by_injected"] is not None]
    assert [(row["lower_mm"], row["upper_mm"]) for row in told] == [(0, 3), (3, 6)]
    assert all(row["found"] >= 10 and row["recall"] == row["found"] / row["injected"] for row in told)
    assert all(row["injected"] < 10 for row in seen if row not in told)
    assert of["missed_lesions"] == pytest.approx(sum(row["missed_lesions"] for row in seen))
    assert of["miss_rate"] == pytest.approx(of["missed_lesions"] / (of["missed_lesions"] + 30))
    low, high = of["miss_rate_ci95_bootstrap"]
    assert low < of["miss_rate"] < high
    assert f"the miss rate is {of['miss_rate']:.2f} (95% interval {low:.2f} to {high:.2f}), about" in printed
    assert [row["seen"] for row in seen] == [
        pytest.approx(row["annotated_lesions"] / (row["annotated_lesions"] + row["missed_lesions"])) for row in seen
    ]
    assert sum(row["annotated_lesions"] for row in rows) == 30
    page = (audited.audit / "audit.html").read_text(encoding="utf-8")
    assert "What the networks see" in page
    assert main(["score", str(audited.audit), "--truth", "501"]) == 0
    assert f"by injected lesions {of['miss_rate']:.3f}, true 0.500" in capsys.readouterr().out
    score = json.loads((audited.audit / "score" / "audit_score.json").read_text())
    assert score["miss_rates"][0]["estimated_by_injected"] == of["miss_rate"]


def test_what_is_written(audited: Audited, made: list[tuple[str, float]]) -> None:
    """Images with lesions beside the annotated ones, as they were elsewhere, in the frame of the dataset's."""
    lesions = injected(per_case=4)
    n = 0
    for fold, case in ((i % 2, f"p{i:02d}") for i in range(N_CASES)):
        folder = audited.results / f"fold_{fold}" / "validation_injected"
        mask = read_image(folder / "labels" / f"{case}.nii.gz")
        label = read_image(audited.raw / "labelsTr" / f"{case}.nii.gz")
        assert mask.geometry == label.geometry
        assert not (mask.array.astype(bool) & label.array.astype(bool)).any()
        assert mask.array.any()
        n += len(find_lesions(mask.array, mask.geometry.spacing_mm))
        for channel, sign in ((0, 1), (1, -1)):
            before = read_image(audited.raw / "imagesTr" / f"{case}_{channel:04d}.nii.gz")
            after = read_image(folder / "images" / f"{case}_{channel:04d}.nii.gz")
            assert after.geometry == before.geometry
            assert after.array.dtype == np.float32
            difference = sign * np.subtract(after.array, before.array, dtype=np.float32)
            assert difference[mask.array != 0].mean() > 3
            assert np.count_nonzero(difference) < 0.2 * difference.size
    assert n == len(lesions.diameter_mm)
    assert sorted(made) == [(f"p{i:02d}", 1) for i in range(N_CASES)]


def test_donors_are_of_the_same_fold(audited: Audited, made: list[tuple[str, float]]) -> None:
    """A network may know the lesions of the other fold by heart."""
    for i in range(0, N_CASES, 2):
        for folder in (audited.raw / "labelsTr", audited.preprocessed / "gt_segmentations"):
            path = folder / f"p{i:02d}.nii.gz"
            image = read_image(path)
            write_image(path, Image(np.zeros_like(image.array), image.geometry))
    injected()
    assert sorted(case for case, _ in made) == [f"p{i:02d}" for i in range(1, N_CASES, 2)]


def test_what_is_there_is_used_again(audited: Audited, made: list[tuple[str, float]]) -> None:
    first = injected(seed=3)
    n = len(made)
    assert n == N_CASES
    folder = audited.results / "fold_1" / "validation_injected"
    before = {path: path.read_bytes() for path in sorted(folder.glob("*/*"))}
    again = injected(seed=3)
    assert len(made) == n
    assert str(first) == str(again)
    # What an interrupt left out is made as it would have been.
    for name in ("labels/p03.nii.gz", "images/p03_0001.nii.gz", "validation_x1/p05.npz"):
        (folder / name).unlink()
    injected(seed=3)
    assert made[n:] == [("p05", 1)]
    images = {path: path.read_bytes() for path in sorted(folder.glob("*/*"))}
    assert images.keys() == before.keys()
    assert all(images[path] == before[path] for path in before if path.suffix == ".gz")


@pytest.mark.parametrize("what", ["seed", "number", "checkpoint", "label"])
def test_what_is_of_something_else_is_made_anew(audited: Audited, made: list[tuple[str, float]], what: str) -> None:
    injected(per_case=4)
    folder = audited.results / "fold_1" / "validation_injected"
    before, n = (folder / "labels" / "p03.nii.gz").read_bytes(), len(made)
    per_case, seed = 5 if what == "number" else 4, int(what == "seed")
    if what == "checkpoint":
        (audited.results / "fold_1" / "checkpoint_final.pth").write_bytes(b"other")
    if what == "label":
        for label in (audited.raw / "labelsTr" / "p01.nii.gz", audited.preprocessed / "gt_segmentations/p01.nii.gz"):
            image = read_image(label)
            write_image(label, Image(np.where(np.arange(SHAPE[0])[:, None, None] < 3, image.array, 0), image.geometry))
    injected(per_case, seed)
    assert {case for case, _ in made[n:]} >= {f"p{i:02d}" for i in range(1, N_CASES, 2)}
    if what in ("seed", "number"):
        assert (folder / "labels" / "p03.nii.gz").read_bytes() != before


def test_the_number_of_workers_changes_nothing(audited: Audited, made: list[tuple[str, float]]) -> None:
    one = injected(n_workers=1)
    shutil.rmtree(audited.results / "fold_0" / "validation_injected")
    shutil.rmtree(audited.results / "fold_1" / "validation_injected")
    assert str(one) == str(injected(n_workers=3))


def refused(message: str) -> None:
    with pytest.raises(InputError) as error:
        injected()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_without_a_checkpoint(audited: Audited, made: list[tuple[str, float]]) -> None:
    (audited.results / "fold_1" / "checkpoint_final.pth").unlink()
    refused(
        f"cannot predict injected lesions: {audited.results.name} has no fold_1/checkpoint_final.pth; "
        "leave out --inject"
    )
    assert not (audited.results / "fold_0" / "validation_injected").exists()


def test_a_cascade(audited: Audited, made: list[tuple[str, float]]) -> None:
    audited.write_checkpoints({"2.5d": {"previous_stage": "3d_lowres"}})
    refused("is a cascade, which needs the predictions of its previous stage; leave out --inject")


def test_colours(audited: Audited, made: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunet_lopsided.audit.inputs.n_components", lambda _: 3)
    refused("p00_0000.nii.gz has 3 values per voxel, and lesions are injected into images of one; leave out --inject")


def test_somebody_elses_folder_and_two_at_once(audited: Audited, made: list[tuple[str, float]]) -> None:
    folder = audited.results / "fold_0" / "validation_injected"
    folder.mkdir()
    (folder / "mine.txt").touch()
    refused("found other files and no injected.json")
    (folder / "mine.txt").unlink()
    with locked(audited.results / "fold_0"):
        refused("another process is writing")
    injected()
    assert made


def test_a_number_below_one(audited: Audited, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*AUDIT, "--inject", "0"]) == 2
    assert "--inject must be at least 1, got 0" in capsys.readouterr().err


def test_withheld_with_the_rates(audited: Audited, made: list[tuple[str, float]]) -> None:
    """False positives as probable as lesions: no estimate, but what the networks see of injected lesions."""
    add_specks(audited, range(0, 8, 2))  # beside them there is room for injected lesions
    assert main([*AUDIT, "--inject"]) == 0
    record = json.loads((audited.audit / "audit.json").read_text())
    of = record["injected"]
    assert record["withheld"]
    assert (of["miss_rate"], of["missed_lesions"], of["undefined"]) == (None, None, record["withheld"])
    assert {row["missed_lesions"] for row in of["by_diameter"]} == {None}
    assert of["lesions"] > 0


def test_magnified_as_the_audit_is(
    audited: Audited, made: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predictions of all factors are averaged, as those of the audit; changed factors change where lesions may be."""
    monkeypatch.setattr(
        "nnunet_lopsided.audit.inputs.predict_magnified",
        lambda folder, _, factors, cases, *__, **___: {
            c.name: [folder / "validation" / f"{c.name}.npz"] for c in cases
        },
    )
    found = injected(magnify=[2])
    assert {factor for _, factor in made} == {1, 2}
    assert len(made) == 2 * N_CASES
    assert (audited.results / "fold_0" / "validation_injected" / "validation_x2" / "p00.npz").is_file()
    assert len(found.found_mm) > 10


def alone(inputs: AuditInputs) -> tuple[AuditedCase, ...]:
    """The cases with the prediction of the second model."""
    return tuple(replace(case, predictions=case.predictions[1:]) for case in inputs.cases)


def test_several_models_predict_the_same_images(audited: Audited, made: list[tuple[str, float]]) -> None:
    """Another seed makes other images, which the second model predicts anew, too."""
    shutil.copytree(audited.results, audited.results.with_name("nnUNetTrainer25D__nnUNetPlans__2.5d"))
    inputs = find_inputs(511, [MODEL, Model("nnUNetTrainer25D", "nnUNetPlans", "2.5d")], magnify=[], device="cpu")
    for seed in (0, 0, 1):
        found = inject_lesions(inputs, rules=RULES, seed=seed, device="cpu")
        assert len(found.found_mm) > 10
    assert sorted(made) == sorted([(f"p{i:02d}", 1) for i in range(N_CASES)] * 4)
    folders = [model.folder("Dataset511_Cut") / "fold_0" / "validation_injected" for model in inputs.models]
    assert [(folder / "images").is_dir() for folder in folders] == [True, False]
    # The second one alone afterwards.
    inject_lesions(replace(inputs, models=inputs.models[1:], cases=alone(inputs)), rules=RULES, device="cpu")
    assert [(folder / "images").is_dir() for folder in folders] == [True, True]
    assert len(made) == 5 * N_CASES


def test_whole_numbers_of_two_dimensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs of one value per pixel, with a class that is not asked for and pixels to be ignored."""
    rng = np.random.default_rng(3)
    root, cases = tmp_path / "nnunet", [f"c{i}" for i in range(5)]
    raw, preprocessed = root / "nnUNet_raw" / "Dataset512_Cells", root / "nnUNet_preprocessed" / "Dataset512_Cells"
    fold = root / "nnUNet_results" / "Dataset512_Cells" / f"{TRAINER}__nnUNetPlans__2d" / "fold_0"
    for folder in (raw / "imagesTr", raw / "labelsTr", preprocessed / "gt_segmentations", fold / "validation"):
        folder.mkdir(parents=True)
    set_root(root, monkeypatch)
    flat = Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
    for case in cases:
        label, image = np.zeros((60, 60), np.uint8), rng.normal(100, 3, (60, 60))
        label[5:12, 5:12], label[5:12, 40:47], label[40:47, 5:12], label[:, 56:] = 1, 1, 2, 3
        image[label == 1] = 250
        write_image(raw / "imagesTr" / f"{case}_0000.png", Image(image.round().clip(0, 255).astype(np.uint8), flat))
        for folder in (raw / "labelsTr", preprocessed / "gt_segmentations"):
            write_image(folder / f"{case}.png", Image(label, flat))
        of = np.stack([np.where(label == k, 0.9, 0.05) for k in range(3)])
        of[1] = np.where(label == 1, 0.9, 0.001)
        of[0] = 1 - of[1] - of[2]
        if case in cases[:4]:
            np.savez_compressed(fold / "validation" / f"{case}.npz", probabilities=of[:, None])
    content = {
        "channel_names": {"0": "grey"},
        "labels": {"background": 0, "cell": 1, "dust": 2, "ignore": 3},
        "numTraining": 5,
        "file_ending": ".png",
    }
    for folder in (raw, preprocessed):
        (folder / "dataset.json").write_text(json.dumps(content))
    (preprocessed / "splits_final.json").write_text(json.dumps([{"train": cases[4:], "val": cases[:4]}]))
    (fold / "checkpoint_final.pth").touch()
    (fold.parent / "plans.json").write_text(json.dumps({"configurations": {"2d": {}}}))

    class Network:
        def __init__(self, *_: object, **__: object) -> None: ...

        def predict(self, case: Case, factor: float, array: Path) -> None:
            p = np.clip((read_image(case.images[0]).array.astype(float) - 110) / 150, 0, 1)
            np.savez_compressed(array, probabilities=np.stack([1 - p, p, 0 * p])[:, None])

    monkeypatch.setattr(magnified, "_Network", Network)
    inputs = find_inputs(512, [Model(TRAINER, "nnUNetPlans", "2d")], magnify=[], device="cpu")
    found = inject_lesions(inputs, rules=RULES, label="cell", per_case=5, device="cpu")
    assert len(found.diameter_mm) > 10
    assert len(found.found_mm) > 0.8 * len(found.diameter_mm)
    assert found.diameter_mm.max() < 9
    folder = fold / "validation_injected"
    for case in cases[:4]:
        before, after = (read_image(path / f"{case}_0000.png").array for path in (raw / "imagesTr", folder / "images"))
        mask = read_image(folder / "labels" / f"{case}.png").array != 0
        annotated = read_image(raw / "labelsTr" / f"{case}.png").array
        assert before.dtype == after.dtype == np.uint8
        # Brighter without a jump beyond 255, and elsewhere than what is annotated as this class or ignored.
        assert np.subtract(after, before, dtype=np.int64)[mask].min() > 10
        assert not (mask & np.isin(annotated, (1, 3))).any()
