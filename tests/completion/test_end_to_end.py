"""lopsided-complete through the console: trained where it is missing, resumed after an interrupt, refused in a line."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nnunet_lopsided.commands.complete import main
from nnunet_lopsided.dataset_conversion.phantom import write_phantom_dataset
from nnunet_lopsided.images import read_image
from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.nnunet.fingerprint import write_fingerprint
from nnunet_lopsided.nnunet.raw import raw_dataset
from tests.console import call, run

pytestmark = pytest.mark.slow

TRAINER = "nnUNetTrainerLopsided_seed3_1epochs_2iters"
BEGIN = f"python -m nnunet_lopsided.commands.complete -d 701 -c 2d -tr {TRAINER} -o 721 -device cpu --threshold 0.02"
COMPLETE = f"{BEGIN} --way soft"


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root of a dataset of four cases and two folds, completed and trained on."""
    root = tmp_path_factory.mktemp("complete")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (root / variable).mkdir()
            patch.setenv(variable, str(root / variable))
        write_phantom_dataset(701, n_train=4, n_test=1, shape=(12, 32, 32), spacing_mm=(5, 4, 4), seed=3)
        # The command would spend its time on drawing nnU-Net's 1e8 voxels.
        write_fingerprint(raw_dataset(701), 10_000)
        run("nnUNetv2_plan_and_preprocess -d 701 -npfp 1 -np 1 -c 2d", root, nnUNet_n_proc_DA="1")
        names = [f"phantom_{i:03d}" for i in range(4)]
        folds = [{"train": names[:2], "val": names[2:]}, {"train": names[2:], "val": names[:2]}]
        (root / "nnUNet_preprocessed" / "Dataset701_Phantom" / "splits_final.json").write_text(json.dumps(folds))
        run(f"{COMPLETE} --train", root, nnUNet_n_proc_DA="0")
        yield root


def record(root: Path) -> dict[str, object]:
    content = json.loads((root / "nnUNet_raw" / "Dataset721_PhantomCompleted" / "completion.json").read_text())
    assert isinstance(content, dict)
    return content


def test_every_fold_and_the_last_training_were_made(completed: Path) -> None:
    results = completed / "nnUNet_results"
    for fold in (0, 1):
        assert (results / f"Dataset701_Phantom/{TRAINER}__nnUNetPlans__2d/fold_{fold}/checkpoint_final.pth").is_file()
    # Networks of two steps call too few annotated lesions to believe in any candidate: labels are learned as they are.
    last = results / f"Dataset721_PhantomCompleted/{TRAINER}__nnUNetPlans__2d/fold_all"
    assert record(completed)["estimated_missed_lesions"] in (None, 0.0)
    assert (last / "checkpoint_final.pth").is_file()
    assert not list(results.glob("lopsided-complete-*.log"))


def test_candidates_are_where_networks_that_did_not_see_the_case_call_a_lesion(completed: Path) -> None:
    variant = completed / "nnUNet_raw" / "Dataset721_PhantomCompleted"
    rows = list(csv.DictReader((variant / "completed_lesions.csv").open()))
    assert len(rows) == record(completed)["n_candidates"]
    called = 0
    for fold, case in ((1, "phantom_000"), (0, "phantom_002")):
        folder = completed / f"nnUNet_results/Dataset701_Phantom/{TRAINER}__nnUNetPlans__2d/fold_{fold}/validation"
        with np.load(folder / f"{case}.npz") as arrays:
            p = arrays["probabilities"][1]
        label = read_image(variant / "labelsTr" / f"{case}.nii.gz").array
        components = find_lesions(p >= 0.02, (5.0, 4.0, 4.0))
        touching = np.unique(components.voxel_ids[label.reshape(-1)[components.voxels] != 0])
        assert len([row for row in rows if row["case"] == case]) == len(components) - len(touching)
        called += len(components)
        assert not read_image(variant / "beliefsTr" / f"{case}.nii.gz").array.any()
    assert called
    page = (variant / "completion.html").read_text()
    assert f"<b>{len(rows)} candidates</b>" in page
    whole = completed / "nnUNet_raw" / "Dataset701_Phantom" / "labelsTr"
    for path in whole.iterdir():
        assert (variant / "labelsTr" / path.name).read_bytes() == path.read_bytes()
    assert "without a reader" in json.loads((variant / "dataset.json").read_text())["completed"]


def test_again_is_nothing_to_do(completed: Path) -> None:
    raw, beliefs = (
        completed / "nnUNet_raw/Dataset721_PhantomCompleted/completion.json",
        completed / "nnUNet_preprocessed/Dataset721_PhantomCompleted/nnUNetPlans_2d/lopsided_beliefs",
    )
    before = raw.stat().st_mtime_ns, (beliefs / "lopsided_beliefs.json").stat().st_mtime_ns
    said = run(COMPLETE, completed)
    assert (raw.stat().st_mtime_ns, (beliefs / "lopsided_beliefs.json").stat().st_mtime_ns) == before
    assert f"nnUNetv2_train Dataset721_PhantomCompleted 2d all -tr {TRAINER} " in str(said)


@pytest.mark.usefixtures("completed")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--threshold 0.5", "--overwrite makes it anew"),
        ("--threshold 1.5", "must be within 0 and 1"),
        ("-tr nnUNetTrainerInverseWeighting", "takes no soft targets"),
        ("-tr nnUNetTrainerLopsided_lookback", "leave out _lookback"),
        ("-tr nnUNetTrainerLopsided_softtargets", "_softtargets is added where something is believed; leave it out"),
        ("-o 701", "is the id of the source"),
    ],
)
def test_refusals(options: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process: another would import torch once more for one line and exit code 2."""
    assert main([*COMPLETE.split()[3:], *options.split()]) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("lopsided-complete: error: ")]
    assert len(lines) == 1, error
    assert said in lines[0]


def test_an_interrupt_loses_nothing(completed: Path) -> None:
    """Without the preprocessed folder it is made again from the variant that is there."""
    shutil.rmtree(completed / "nnUNet_preprocessed/Dataset721_PhantomCompleted")
    run(COMPLETE, completed)
    beliefs = completed / "nnUNet_preprocessed/Dataset721_PhantomCompleted/nnUNetPlans_2d/lopsided_beliefs"
    assert len(list(beliefs.glob("*.b2nd"))) == 4


def test_after_a_round_that_believes_in_nothing_there_is_no_second(completed: Path) -> None:
    said = run(f"{COMPLETE} -o 731 --rounds 2 --first-round 721", completed)
    assert "the first round believes in no candidate, so there was no second" in str(said)
    variant = completed / "nnUNet_raw" / "Dataset731_PhantomCompleted"
    assert len(list((variant / "beliefsTr").iterdir())) == 4
    assert [one["trained_on"] for one in json.loads((variant / "completion.json").read_text())["rounds"]] == [
        "Dataset701_Phantom"
    ]


def test_a_sample_and_zones_that_are_trained_on(completed: Path) -> None:
    """Untrained networks tell nothing without a reader; here a reader accepts, doubts and rejects in turn."""
    command = f"{BEGIN} -o 732 --name Zones"
    refused = call(command, completed)
    assert refused.returncode == 2
    assert "error: no zones without a reader: " in refused.stderr
    run(f"{command} --sample 12", completed)
    (sample,) = completed.glob(f"nnUNet_results/Dataset701_Phantom/{TRAINER}__*/completion_*/sample/sample.csv")
    with sample.open() as file:
        drawn = [row for row in csv.DictReader(file) if row["sampled"] == "1"]
    words = ("accept", "unsure", "reject")
    lines = [f"{row['audit']},{row['case']},{row['candidate']},{words[i % 3]}" for i, row in enumerate(drawn)]
    (completed / "d.csv").write_text("\n".join(["audit,case,candidate,decision", *lines, ""]))
    run(f"{command} --sample 12 --decisions d.csv --train", completed, nnUNet_n_proc_DA="0")
    found = {1: 0, 2: 0}
    for path in (completed / "nnUNet_raw" / "Dataset732_Zones" / "labelsTr").iterdir():
        label, before = (
            np.asarray(read_image(folder / path.name).array)
            for folder in (path.parent, completed / "nnUNet_raw" / "Dataset701_Phantom" / "labelsTr")
        )
        assert (label[before == 1] == 1).all()
        for value in found:
            found[value] += int(((label == value) & (before == 0)).sum())
    assert found[1]
    assert found[2]
    last = completed / f"nnUNet_results/Dataset732_Zones/{TRAINER}__nnUNetPlans__2d/fold_all"
    assert (last / "checkpoint_final.pth").is_file()
