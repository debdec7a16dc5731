"""Censored variants on disk: labels, references, what nnU-Net makes of them, and interruptions."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnunet_lopsided import __version__
from nnunet_lopsided.dataset_conversion.phantom import PhantomSettings, write_phantom_dataset
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.locks import locked_beside
from nnunet_lopsided.images import Geometry, Image, read_image, write_image
from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.nnunet.lesion_labels import censor_label, label_lesions, sparse_label
from nnunet_lopsided.nnunet.raw import RawDataset, raw_dataset
from nnunet_lopsided.variants.planning import Choice, plan_censoring
from nnunet_lopsided.variants.reader_misses import miss_rate
from nnunet_lopsided.variants.writing import write_censored_variant

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
PLAIN = Geometry((2.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))


@contextmanager
def nnunet_paths(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with monkeypatch.context() as patch:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (root / variable).mkdir(parents=True)
            patch.setenv(variable, str(root / variable))
        yield root / "nnUNet_raw"


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with nnunet_paths(tmp_path, monkeypatch) as folder:
        yield folder


def write_dataset(
    folder: Path, label_maps: dict[str, NDArray[Any]], geometry: Geometry = PLAIN, ending: str = ".nii.gz", **extra
) -> Path:
    """A one-channel dataset whose images are its labels."""
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    for case, label in label_maps.items():
        write_image(folder / "imagesTr" / f"{case}_0000{ending}", Image(label, geometry))
        write_image(folder / "labelsTr" / f"{case}{ending}", Image(label, geometry))
    content = {
        "channel_names": {"0": "MR"},
        "labels": TWO_CLASSES,
        "numTraining": len(label_maps),
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(content | extra))
    return folder


def volume(*voxels: tuple[int, int, int, int], dtype: type = np.uint8) -> NDArray[Any]:
    """Zeros of shape (4, 6, 8) but for ``(z, y, x, value)``."""
    array: NDArray[Any] = np.zeros((4, 6, 8), dtype)
    for z, y, x, value in voxels:
        array[z, y, x] = value
    return array


TWO_CASES = {
    # One lesion of two classes, its parts touching at corners only; one of a single voxel.
    "a": volume((0, 0, 0, 1), (1, 1, 1, 2), (1, 1, 2, 1), (3, 5, 7, 1)),
    # Two voxels; five in a row.
    "b": volume((2, 2, 2, 1), (2, 2, 3, 1), *((0, 0, x, 2) for x in range(5))),
}
TWO_CLASSES = {"background": 0, "core": 1, "rim": 2}


@pytest.fixture
def phantom(raw: Path) -> Path:
    return write_phantom_dataset(501, n_train=3, n_test=2, shape=(10, 32, 32), spacing_mm=(4.0, 3.5, 3.5), seed=1)


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def read_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / "censored_lesions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_smallest_lesions_vanish_and_nothing_else_changes(raw: Path) -> None:
    write_dataset(raw / "Dataset001_Two", TWO_CASES, labels=TWO_CLASSES)
    variant = write_censored_variant(1, 2, "size", 0.5)
    assert (variant.n_lesions, variant.n_censored) == (4, 2)
    assert variant.folder == raw / "Dataset002_TwoCensored"
    expected = {"a": volume((0, 0, 0, 1), (1, 1, 1, 2), (1, 1, 2, 1)), "b": volume(*((0, 0, x, 2) for x in range(5)))}
    for case in RawDataset(variant.folder).training_cases():
        label = read_image(case.label)
        np.testing.assert_array_equal(label.array, expected[case.name])
        assert label.array.dtype == np.uint8
        assert label.geometry == PLAIN

    assert (variant.folder / "censored_lesions.csv").read_text() == (
        "case,id,volume_mm3,diameter_mm,status\n"
        "a,1,6,2.2545033,kept\n"
        "a,2,2,1.56318528,censored\n"
        "b,1,10,2.67300924,kept\n"
        "b,2,4,1.96949004,censored\n"
    )
    assert json.loads((variant.folder / "censoring.json").read_text()) == {
        "tool": "nnunet-lopsided",
        "version": __version__,
        "source_dataset": "Dataset001_Two",
        "mode": "size",
        "rate": 0.5,
        "seed": 0,
        "n_lesions": 4,
        "n_censored": 2,
        "realised_fraction": 0.5,
    }
    assert json.loads((variant.folder / "dataset.json").read_text()) == {
        "channel_names": {"0": "MR"},
        "labels": TWO_CLASSES,
        "numTraining": 2,
        "file_ending": ".nii.gz",
        "dataset": {
            case: {"images": [f"../Dataset001_Two/imagesTr/{case}_0000.nii.gz"], "label": f"labelsTr/{case}.nii.gz"}
            for case in "ab"
        },
    }


def test_lesion_table_is_what_find_lesions_says(raw: Path) -> None:
    folder = write_dataset(raw / "Dataset001_Two", TWO_CASES, labels=TWO_CLASSES)
    table = plan_censoring(folder.name, Choice(mode="size", rate=0.5)).table
    assert [(r.case, r.id, r.n_voxels) for r in table] == [("a", 1, 3), ("a", 2, 1), ("b", 1, 5), ("b", 2, 2)]
    assert [r.volume_mm3 for r in table] == [6, 2, 10, 4]
    lesions = find_lesions(TWO_CASES["a"], (2, 1, 1))
    assert [r.diameter_mm for r in table[:2]] == lesions.diameter_mm.tolist()


def test_the_ignore_label_is_no_lesion_and_stays(raw: Path) -> None:
    label = volume((0, 0, 0, 1), (0, 0, 1, 3), (0, 0, 2, 2), (0, 1, 3, 2), (3, 5, 7, 3), dtype=np.int16)
    write_dataset(raw / "Dataset001_Ignore", {"a": label}, labels={**TWO_CLASSES, "ignore": 3})
    variant = write_censored_variant(1, 2, "stochastic", 1.0)
    assert variant.n_lesions == 2, "the ignore voxel between them does not join two lesions"
    found = read_image(variant.folder / "labelsTr" / "a.nii.gz").array
    np.testing.assert_array_equal(found, volume((0, 0, 1, 3), (3, 5, 7, 3)))
    assert found.dtype == np.int16


def test_regions_and_other_keys_travel(raw: Path) -> None:
    extra: dict[str, Any] = {
        "labels": {"background": 0, "whole": [1, 2], "core": 2},
        "regions_class_order": [1, 2],
        "overwrite_image_reader_writer": "SimpleITKIO",
        "licence": "CC0",
    }
    source = write_dataset(raw / "Dataset001_Regions", TWO_CASES, **extra)
    (source / "splits_final.json").write_text('[{"train": ["a"], "val": ["b"]}]')
    variant = write_censored_variant("Dataset001_Regions", 2, "size", 0.25, name="Small")
    assert variant.folder.name == "Dataset002_Small"
    written = json.loads((variant.folder / "dataset.json").read_text())
    assert {key: written[key] for key in extra} == extra
    assert (variant.folder / "splits_final.json").read_text() == '[{"train": ["a"], "val": ["b"]}]'


def test_oblique_geometry_is_kept(raw: Path) -> None:
    c, s = np.cos(0.3), np.sin(0.3)
    geometry = Geometry((3.3, 0.7, 0.9), (-12.5, 40.25, 7.125), (c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0))
    source = write_dataset(raw / "Dataset001_Oblique", TWO_CASES, geometry)
    variant = write_censored_variant(1, 2, "size", 0.5)
    for case in "ab":
        before = read_image(source / "labelsTr" / f"{case}.nii.gz").geometry
        after = read_image(variant.folder / "labelsTr" / f"{case}.nii.gz").geometry
        assert before.difference(after, tolerance=1e-6) is None


def test_png(raw: Path) -> None:
    flat = Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
    label = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]], np.uint8)
    write_dataset(raw / "Dataset001_Flat", {"a": label}, flat, ".png")
    variant = write_censored_variant(1, 2, "size", 0.5)
    assert variant.n_lesions == 2, "pixels that touch at a corner are one lesion"
    expected = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert read_image(variant.folder / "labelsTr" / "a.png").array.tolist() == expected
    assert [r["volume_mm3"] for r in read_csv(variant.folder)] == ["2", "1"]


def test_censor_label_leaves_its_input_alone() -> None:
    label = Image(TWO_CASES["a"].copy(), PLAIN)
    assert not censor_label(label, None, [1, 2]).array.any()
    np.testing.assert_array_equal(label.array, TWO_CASES["a"])


def test_csv_and_labels_agree(phantom: Path) -> None:
    variant = write_censored_variant(501, 511, "stochastic", 0.5, seed=3)
    rows = read_csv(variant.folder)
    assert len(rows) == variant.n_lesions
    assert 0 < variant.n_censored < variant.n_lesions
    for case in RawDataset(phantom).training_cases():
        source = read_image(case.label)
        ids = find_lesions(source.array, source.geometry.spacing_mm).instances()
        kept = [int(r["id"]) for r in rows if (r["case"], r["status"]) == (case.name, "kept")]
        written = read_image(variant.folder / "labelsTr" / case.label.name)
        np.testing.assert_array_equal(written.array, np.isin(ids, kept).astype(np.uint8))


def test_test_files_are_links_to_whole_labels(phantom: Path) -> None:
    variant = write_censored_variant(501, 511, "size", 1.0)
    for kind, n in (("imagesTs", 8), ("labelsTs", 2)):
        files = sorted((variant.folder / kind).iterdir())
        assert len(files) == n
        for file in files:
            assert os.readlink(file) == f"../../Dataset501_Phantom/{kind}/{file.name}"
            assert file.read_bytes() == (phantom / kind / file.name).read_bytes()
    assert [c.name for c in RawDataset(variant.folder).test_cases()] == ["phantom_test_000", "phantom_test_001"]
    assert not any(read_image(p).array.any() for p in (variant.folder / "labelsTr").iterdir())


def test_same_seed_same_bytes(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write_censored_variant(501, 511, "stochastic", 0.5, seed=7)
    two = write_censored_variant(501, 512, "stochastic", 0.5, seed=7, name="Other", n_workers=1)
    other = write_censored_variant(501, 513, "stochastic", 0.5, seed=8)
    with nnunet_paths(tmp_path / "elsewhere", monkeypatch) as root:
        shutil.copytree(phantom, root / phantom.name)
        far = write_censored_variant(501, 511, "stochastic", 0.5, seed=7)
    assert len(content_of(one.folder)) == 4 + 3 + 8 + 2
    assert content_of(one.folder) == content_of(two.folder) == content_of(far.folder)
    assert content_of(one.folder) != content_of(other.folder)


def test_references_survive_moving_nnunet_raw(phantom: Path, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write_censored_variant(501, 511, "size", 0.5).folder.name
    moved = raw.rename(raw.parent / "moved")
    monkeypatch.setenv("nnUNet_raw", str(moved))
    dataset = raw_dataset(511)
    assert dataset.folder == moved / name
    for case in [*dataset.training_cases(), *dataset.test_cases()]:
        assert len(case.images) == 4
        assert all(moved in p.resolve().parents and p.is_file() for p in case.images)


def test_a_variant_of_a_variant_refers_to_the_first_source(phantom: Path) -> None:
    first = write_censored_variant(501, 511, "size", 0.3)
    second = write_censored_variant(511, 512, "size", 0.5)
    assert second.n_lesions == first.n_lesions - first.n_censored
    dataset = RawDataset(second.folder)
    assert {p.parent for c in dataset.training_cases() for p in c.images} == {phantom / "imagesTr"}
    assert os.readlink(next((second.folder / "labelsTs").iterdir())).startswith("../../Dataset501_Phantom/labelsTs/")
    shutil.rmtree(first.folder)
    assert all(p.is_file() for c in [*dataset.training_cases(), *dataset.test_cases()] for p in c.images)


def test_images_outside_nnunet_raw_are_referenced_absolutely(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = write_dataset(tmp_path / "outside", TWO_CASES)
    monkeypatch.setenv("ARCHIVE", str(outside))
    source = raw / "Dataset001_Referring"
    source.mkdir()
    content = json.loads((outside / "dataset.json").read_text())
    content["dataset"] = {
        c: {"images": [f"$ARCHIVE/imagesTr/{c}_0000.nii.gz"], "label": f"$ARCHIVE/labelsTr/{c}.nii.gz"} for c in "ab"
    }
    (source / "dataset.json").write_text(json.dumps(content))
    (source / "imagesTs").mkdir()
    (source / "imagesTs" / "t_0000.nii.gz").symlink_to(outside / "imagesTr" / "a_0000.nii.gz")
    variant = write_censored_variant(1, 2, "size", 0.5)
    expected = [outside / "imagesTr" / f"{c}_0000.nii.gz" for c in "ab"]
    cases = RawDataset(variant.folder).training_cases()
    assert [c.images for c in cases] == [(p,) for p in expected]
    assert os.readlink(variant.folder / "imagesTs" / "t_0000.nii.gz") == str(expected[0])


def test_nnunet_accepts_a_variant(phantom: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
    from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    variant = write_censored_variant(501, 511, "stochastic", 0.5)
    (phantom.parent / ".unfinished-Dataset511_X").mkdir()
    assert convert_id_to_dataset_name(511) == variant.folder.name
    found = get_filenames_of_train_images_and_targets(str(variant.folder))
    assert found == {
        c.name: {"images": [str(p) for p in c.images], "label": str(c.label)}
        for c in RawDataset(variant.folder).training_cases()
    }
    assert len(found) == 3
    verify_dataset_integrity(str(variant.folder), num_processes=1)
    assert "verify_dataset_integrity Done" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": 499}, "dataset 499 not found"),
        ({"source": "Dataset501_Wrong"}, "dataset Dataset501_Wrong not found"),
        ({"output_id": 501}, "output id 501 is the id of the source"),
        ({"output_id": 0}, "within 1 to 999, got 0"),
        ({"output_id": 1000}, "within 1 to 999, got 1000"),
        ({"output_id": -5}, "within 1 to 999, got -5"),
        ({"rate": 1.5}, r"rate must be within \[0, 1\], got 1.5"),
        ({"rate": float("nan")}, r"rate must be within \[0, 1\], got nan"),
        ({"mode": "all"}, "mode must be one of"),
        ({"name": "a/b"}, "dataset name must consist of"),
        ({"n_workers": 0}, "number of workers"),
    ],
)
def test_bad_arguments_write_nothing(phantom: Path, raw: Path, arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        write_censored_variant(**{"source": 501, "output_id": 511, "mode": "size", "rate": 0.5} | arguments)
    assert list(raw.iterdir()) == [phantom]


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_id_in_use_under_another_name_is_refused(phantom: Path, raw: Path, variable, overwrite) -> None:
    taken = raw.parent / variable / "Dataset511_Taken"
    taken.mkdir()
    with pytest.raises(InputError, match=f"dataset id 511 is in use: {taken}$"):
        write_censored_variant(501, 511, "size", 0.5, overwrite=overwrite)
    assert sorted(p.name for p in raw.iterdir() if p != taken) == ["Dataset501_Phantom"]


def test_a_source_without_lesions_or_with_a_broken_label_writes_nothing(raw: Path) -> None:
    source = write_dataset(raw / "Dataset001_Empty", {"a": volume()})
    with pytest.raises(InputError, match="Dataset001_Empty: the training labels hold no lesion"):
        write_censored_variant(1, 2, "size", 0.5)
    (source / "labelsTr" / "a.nii.gz").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"cannot read image .*a\.nii\.gz"):
        write_censored_variant(1, 2, "size", 0.5)
    (source / "labelsTr" / "a.nii.gz").unlink()
    with pytest.raises(InputError, match="case a: label not found"):
        write_censored_variant(1, 2, "size", 0.5)
    (source / "dataset.json").write_text("{}")
    with pytest.raises(InputError, match="missing: labels"):
        write_censored_variant(1, 2, "size", 0.5)
    assert list(raw.iterdir()) == [source]


def test_nnunet_raw_must_be_set(phantom: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(InputError, match="nnUNet_raw is not set"):
        write_censored_variant(501, 511, "size", 0.5)
    monkeypatch.setenv("nnUNet_raw", "/nowhere")
    with pytest.raises(InputError, match="nnUNet_raw is set to /nowhere, which is not a folder"):
        write_censored_variant(501, 511, "size", 0.5)


def test_overwriting_replaces_only_a_variant_of_the_same_name(phantom: Path, raw: Path) -> None:
    variant = write_censored_variant(501, 511, "size", 0.5)
    before = content_of(variant.folder)
    with pytest.raises(InputError, match=r"511 is in use.*; --overwrite replaces it"):
        write_censored_variant(501, 511, "size", 1.0)
    with pytest.raises(InputError, match="rate must be"):
        write_censored_variant(501, 511, "size", 2.0, overwrite=True)
    assert content_of(variant.folder) == before
    assert write_censored_variant(501, 511, "size", 1.0, overwrite=True).n_censored == variant.n_lesions
    assert content_of(variant.folder) != before
    (variant.folder / "censoring.json").unlink()
    with pytest.raises(InputError, match=r"not replaced: it holds no censoring\.json"):
        write_censored_variant(501, 511, "size", 0.5, overwrite=True)
    assert sorted(p.name for p in raw.iterdir()) == ["Dataset501_Phantom", "Dataset511_PhantomCensored"]


def test_two_at_once_do_not_disturb_each_other(phantom: Path, raw: Path) -> None:
    with (
        locked_beside(raw / "Dataset511_PhantomCensored"),
        pytest.raises(InputError, match="another process is writing"),
    ):
        write_censored_variant(501, 511, "size", 0.5)
    assert write_censored_variant(501, 511, "size", 0.5).n_censored
    assert sorted(p.name for p in raw.iterdir()) == ["Dataset501_Phantom", "Dataset511_PhantomCensored"]


def run_hooked(hook: str, *arguments: str, send: signal.Signals | None = None) -> subprocess.CompletedProcess[str]:
    """lopsided-censor in a process of its own, with ``hook`` executed before; ``send`` a signal once it says READY."""
    program = (
        "import os, signal, sys, time\nimport nnunet_lopsided.variants.writing as variants\n"
        "from nnunet_lopsided.commands.censor import main\n"
        # A shell makes what it starts in the background ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"{hook}\nsys.exit(main({[*arguments]!r}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if send is not None:
        assert process.stdout is not None
        assert process.stdout.readline() == "READY\n"
        time.sleep(0.1)
        process.send_signal(send)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(program, process.returncode, out, err)


ARGUMENTS = ("-d", "501", "-o", "511", "--mode", "size", "--rate", "0.5")
KILLED_WHILE_WRITING = """
write = variants.write_image
def kill_at_the_second_label(path, image, seen=[]):
    seen.append(path)
    write(path, image)
    if len(seen) >= 2:  # labels are written by several threads
        os.kill(os.getpid(), signal.SIGKILL)
variants.write_image = kill_at_the_second_label
"""
KILLED_BETWEEN_THE_RENAMES = """
from pathlib import Path
from nnunet_lopsided.files import folders
folders.exchange = lambda one, other: False  # a file system where names do not change in one step
rename = Path.rename
def kill_after_moving_the_old_one_away(self, target):
    renamed = rename(self, target)
    if Path(target).name.startswith(".replaced"):
        os.kill(os.getpid(), signal.SIGKILL)
    return renamed
Path.rename = kill_after_moving_the_old_one_away
"""


def test_the_same_command_works_after_a_kill(phantom: Path, raw: Path) -> None:
    killed = run_hooked(KILLED_WHILE_WRITING, *ARGUMENTS)
    assert killed.returncode == -signal.SIGKILL
    lock, unfinished, _ = sorted(p.name for p in raw.iterdir())
    assert lock == ".Dataset511_PhantomCensored.lopsided-lock"
    assert unfinished.startswith(".unfinished-Dataset511_PhantomCensored-")
    assert run_hooked("", *ARGUMENTS).returncode == 0
    assert sorted(p.name for p in raw.iterdir()) == ["Dataset501_Phantom", "Dataset511_PhantomCensored"]
    found = content_of(raw / "Dataset511_PhantomCensored")
    assert found == content_of(write_censored_variant(501, 512, "size", 0.5).folder)


def test_a_kill_while_overwriting_loses_nothing(phantom: Path, raw: Path) -> None:
    variant = write_censored_variant(501, 511, "size", 0.2)
    before = content_of(variant.folder)
    killed = run_hooked(KILLED_BETWEEN_THE_RENAMES, *ARGUMENTS, "--overwrite")
    assert killed.returncode == -signal.SIGKILL
    assert not variant.folder.exists()
    with pytest.raises(InputError, match="in use"):
        write_censored_variant(501, 511, "size", 0.5)
    assert content_of(variant.folder) == before, "the next run puts the old variant back before anything else"
    write_censored_variant(501, 511, "size", 0.5, overwrite=True)
    assert content_of(variant.folder) != before
    assert sorted(p.name for p in raw.iterdir()) == ["Dataset501_Phantom", "Dataset511_PhantomCensored"]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cleans_up(phantom: Path, raw: Path, sent: signal.Signals) -> None:
    wait = """
def wait(*_):
    print("READY", flush=True)
    time.sleep(30)
variants._write_lesions_csv = wait
"""
    stopped = run_hooked(wait, *ARGUMENTS, send=sent)
    assert stopped.returncode == 130
    assert stopped.stderr.splitlines()[-1].startswith("lopsided-censor: interrupted")
    assert "Traceback" not in stopped.stderr
    assert list(raw.iterdir()) == [phantom]


@pytest.mark.skipif(not (SHARED_DATA / "open_ms_blocks").is_dir(), reason="needs shared/data/open_ms_blocks")
def test_real_3d_data(raw: Path) -> None:
    (raw / "Dataset600_MS").symlink_to(SHARED_DATA / "open_ms_blocks")
    variant = write_censored_variant(600, 610, "size", 0.5)
    assert (variant.n_lesions, variant.n_censored) == (76, 38)
    for case in RawDataset(variant.folder).training_cases():
        assert case.images[0].is_file()
        before, after = (
            read_image(SHARED_DATA / "open_ms_blocks" / "labelsTr" / case.label.name),
            read_image(case.label),
        )
        assert before.geometry == after.geometry
        assert before.array.dtype == after.array.dtype
        assert np.logical_or(np.equal(after.array, 0), np.equal(after.array, before.array)).all()


@pytest.mark.skipif(not (SHARED_DATA / "nuclei").is_dir(), reason="needs shared/data/nuclei")
def test_real_2d_data(raw: Path) -> None:
    (raw / "Dataset601_Nuclei").symlink_to(SHARED_DATA / "nuclei")
    variant = write_censored_variant(601, 611, "stochastic", 0.5)
    assert variant.n_lesions == 1479
    assert variant.n_censored == pytest.approx(1479 / 2, abs=80)
    assert len(RawDataset(variant.folder).test_cases()) == 38


def test_phantom_settings_reach_the_files(raw: Path) -> None:
    """A lesion-free phantom cannot be censored."""
    none = PhantomSettings(n_lesions_min=0, n_lesions_mean=0)
    write_phantom_dataset(501, n_train=1, n_test=0, shape=(8, 24, 24), spacing_mm=(5, 5, 5), settings=none)
    with pytest.raises(InputError, match="hold no lesion"):
        write_censored_variant(501, 511, "size", 0.5)


def test_contrast_is_measured_in_the_images(raw: Path) -> None:
    """Two lesions of the same size: the one that is hardly brighter than its surroundings goes."""
    source = write_dataset(raw / "Dataset001_Two", {"a": volume((1, 1, 1, 1), (2, 4, 6, 1))})
    rng = np.random.default_rng(0)
    image = rng.normal(100, 5, (4, 6, 8)).astype(np.float32)
    image[1, 1, 1], image[2, 4, 6] = 200, 108
    write_image(source / "imagesTr" / "a_0000.nii.gz", Image(image, PLAIN))
    variant = write_censored_variant(1, 2, "contrast", 0.5)
    rows = read_csv(variant.folder)
    assert [(row["id"], row["status"]) for row in rows] == [("1", "kept"), ("2", "censored")]
    spread = 1.4826 * np.median(np.abs(image - np.median(image)))
    grid = np.moveaxis(np.mgrid[:4, :6, :8], 0, -1) * (2.0, 1.0, 1.0)
    for row, at in zip(rows, ((1, 1, 1), (2, 4, 6)), strict=True):
        distance = np.linalg.norm(grid - grid[at], axis=-1)
        shell = (distance <= 3) & (distance > 0)
        assert float(row["contrast"]) == pytest.approx(abs(image[at] - image[shell].mean()) / spread, rel=1e-5)
    assert json.loads((variant.folder / "censoring.json").read_text())["mode"] == "contrast"


def test_an_image_of_another_shape_has_no_contrast(raw: Path) -> None:
    source = write_dataset(raw / "Dataset001_Two", TWO_CASES)
    write_image(source / "imagesTr" / "b_0000.nii.gz", Image(np.ones((4, 6, 7), np.uint8), PLAIN))
    with pytest.raises(InputError, match=r"case b: expected .*b_0000\.nii\.gz to have its label's shape \(4, 6, 8\)"):
        write_censored_variant(1, 2, "contrast", 0.5)
    write_image(source / "imagesTr" / "b_0000.nii.gz", Image(np.full((4, 6, 8), np.nan, np.float32), PLAIN))
    with pytest.raises(InputError, match=r"case b: .*b_0000\.nii\.gz holds values that are not finite"):
        write_censored_variant(1, 2, "contrast", 0.5)


def test_a_list_replays_another_variant(phantom: Path, tmp_path: Path) -> None:
    first = write_censored_variant(501, 511, "stochastic", 0.5, seed=4)
    replayed = write_censored_variant(501, 512, "list", lesion_list=first.folder / "censored_lesions.csv")
    assert replayed.n_censored == first.n_censored
    one, other = content_of(first.folder), content_of(replayed.folder)
    assert one.pop(".lopsided.json") != other.pop(".lopsided.json"), "each has an id of its own"
    record = json.loads(other.pop("censoring.json"))
    assert one.pop("censoring.json") != b""
    assert one == other
    assert (record["mode"], record["rate"]) == ("list", None)
    assert len(record["list_sha256"]) == 64

    hand_made = tmp_path / "mine.csv"  # without a status, all of its lesions go
    row = read_csv(first.folder)[3]
    hand_made.write_text(f"case,id,volume_mm3\n{row['case']},{row['id']},{row['volume_mm3']}\n")
    assert write_censored_variant(501, 513, "list", lesion_list=hand_made).n_censored == 1
    hand_made.write_text(f"case,id,volume_mm3\n{row['case']},{row['id']},{float(row['volume_mm3']) * 2}\n")
    with pytest.raises(InputError, match=r"expected the listed volume of .* the labels are not those"):
        write_censored_variant(501, 514, "list", lesion_list=hand_made)
    for word, n in (("Censored ", 1), (" KEPT", 0)):
        hand_made.write_text(f"case,id,volume_mm3,status\n{row['case']},{row['id']},{row['volume_mm3']},{word}\n")
        plan = plan_censoring(501, Choice(mode="list", lesion_list=hand_made))
        assert len(plan.censored) == n
    hand_made.write_text(f"case,id,volume_mm3,status\n{row['case']},{row['id']},{row['volume_mm3']},keep\n")
    with pytest.raises(InputError, match="line 2: expected the status kept or censored, found 'keep' for case"):
        write_censored_variant(501, 514, "list", lesion_list=hand_made)
    hand_made.write_text("case,id\n")
    with pytest.raises(InputError, match=r"mine\.csv: expected the columns case, id and volume_mm3"):
        write_censored_variant(501, 514, "list", lesion_list=hand_made)
    hand_made.write_text("case,id,volume_mm3\na,one,3\n")
    with pytest.raises(InputError, match=r"mine\.csv, line 2: expected case,id,volume_mm3"):
        write_censored_variant(501, 514, "list", lesion_list=hand_made)


@pytest.mark.parametrize(("content", "found"), [(b"case,id,volume_mm3\n\xe9,1,3\n", "0xe9"), (b"a\0b\n", "NUL")])
def test_a_list_that_is_no_utf8_csv(phantom: Path, tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"bad\.csv: expected CSV.*found .*{found}"):
        write_censored_variant(501, 514, "list", lesion_list=tmp_path / "bad.csv")
    (phantom / "cases.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"cases\.csv: expected CSV.*found .*{found}"):
        write_censored_variant(501, 514, None, n_patients=2)


def test_a_list_of_more_cases_than_are_in_scope(phantom: Path, tmp_path: Path) -> None:
    whole = write_censored_variant(501, 511, "size", 1.0, cases="all")
    rows = read_csv(whole.folder)
    of_test = [row for row in rows if row["case"].startswith("phantom_test")]
    assert 0 < len(of_test) < len(rows)
    lesions = whole.folder / "censored_lesions.csv"
    training = write_censored_variant(501, 512, "list", lesion_list=lesions)
    assert training.n_censored == len(rows) - len(of_test)
    assert training.notes == (
        f"{len(of_test)} rows of the list are of cases that are not censored here, and had no effect",
    )
    fewer = write_censored_variant(501, 513, "list", lesion_list=lesions, n_patients=2)
    kept = set(json.loads((fewer.folder / "dataset.json").read_text())["dataset"])
    assert fewer.n_censored == sum(row["case"] in kept for row in rows)
    record = json.loads((fewer.folder / "censoring.json").read_text())
    assert record["list_rows_out_of_scope"] == len(rows) - fewer.n_censored
    unknown = tmp_path / "unknown.csv"
    unknown.write_text(lesions.read_text() + "elsewhere,1,3,2,censored\n")
    with pytest.raises(InputError, match="case elsewhere, lesion 1: is in the list, but the dataset holds no lesion"):
        write_censored_variant(501, 514, "list", lesion_list=unknown)


@pytest.mark.parametrize("mode", ["stochastic", "size", "reader"])
def test_all_cases_censors_test_labels_and_the_same_training_labels(phantom: Path, mode: str) -> None:
    train = write_censored_variant(501, 511, mode, 0.5, name="Train")
    both = write_censored_variant(501, 512, mode, 0.5, name="Both", cases="all")
    for path in (train.folder / "labelsTr").iterdir():
        assert path.read_bytes() == (both.folder / "labelsTr" / path.name).read_bytes()
    kept = {(r["case"], int(r["id"])) for r in read_csv(both.folder) if r["status"] == "kept"}
    for case in RawDataset(phantom).test_cases():
        written = both.folder / "labelsTs" / case.label.name
        assert not written.is_symlink()
        assert (both.folder / "imagesTs" / f"{case.name}_0000.nii.gz").is_symlink()
        source = read_image(case.label)
        ids = find_lesions(source.array, source.geometry.spacing_mm).instances()
        expected = np.isin(ids, [i for name, i in kept if name == case.name])
        np.testing.assert_array_equal(read_image(written).array, expected.astype(np.uint8))
    assert both.n_censored > train.n_censored
    assert json.loads((both.folder / "censoring.json").read_text())["cases"] == "all"
    (phantom / "labelsTs" / "phantom_test_000.nii.gz").unlink()
    with pytest.raises(InputError, match="test case phantom_test_000: label not found, so it cannot be censored"):
        write_censored_variant(501, 513, mode, 0.5, cases="all")


MANY = {f"p{patient}_t{time}": volume((0, 0, time, 1)) for patient in range(1, 7) for time in (1, 2)}


@pytest.mark.parametrize("by", ["regex", "cases.csv"])
def test_patients_are_kept_whole_and_nested(raw: Path, by: str) -> None:
    source = write_dataset(raw / "Dataset001_Many", MANY)
    (source / "imagesTs").mkdir()
    write_image(source / "imagesTs" / "test_0000.nii.gz", Image(MANY["p1_t1"], PLAIN))
    folds = [{"train": sorted(MANY)[:8], "val": sorted(MANY)[8:]}]
    (source / "splits_final.json").write_text(json.dumps(folds))
    if by == "cases.csv":
        rows = "".join(f"{case},{case.split('_')[0]}\n" for case in MANY)
        (source / "cases.csv").write_text("case,patient\n" + rows)
    regex = r"(p\d+)_" if by == "regex" else None
    found = []
    for n in (1, 2, 4, 6):
        variant = write_censored_variant(1, 10 + n, "size", 0.5, seed=3, n_patients=n, patients_regex=regex)
        content = json.loads((variant.folder / "dataset.json").read_text())
        cases = set(content["dataset"])
        assert content["numTraining"] == len(cases) == 2 * n
        assert len({case.split("_")[0] for case in cases}) == n
        assert {p.name for p in (variant.folder / "labelsTr").iterdir()} == {f"{case}.nii.gz" for case in cases}
        assert variant.n_lesions == 2 * n
        assert (variant.folder / "imagesTs" / "test_0000.nii.gz").is_file()
        record = json.loads((variant.folder / "censoring.json").read_text())
        assert (record["patients"]["n"], record["patients"]["of"]) == (n, 6)
        left = {side: [case for case in folds[0][side] if case in cases] for side in ("train", "val")}
        if n == 1:
            assert not (variant.folder / "splits_final.json").exists()
            assert variant.notes == ("only one patient to train on: no splits_final.json is written",)
        elif left["train"] and left["val"]:
            assert json.loads((variant.folder / "splits_final.json").read_text()) == [left]
            assert variant.notes == ()
        assert record.get("splits", "") == "".join(variant.notes)
        found.append(cases)
    assert found[0] < found[1] < found[2] < found[3] == set(MANY)
    with pytest.raises(InputError, match="number of patients must be within 1 to 6, the patients to train on, got 7"):
        write_censored_variant(1, 20, None, n_patients=7, patients_regex=regex)


@pytest.mark.parametrize("seed", range(4))
def test_every_fold_of_fewer_patients_can_be_trained(raw: Path, seed: int) -> None:
    source = write_dataset(raw / "Dataset001_Many", MANY)
    by_patient = [[case for case in MANY if case.startswith(f"p{p}_")] for p in range(1, 7)]
    folds = [{"train": sorted(set(MANY) - set(val)), "val": val} for val in by_patient]
    (source / "splits_final.json").write_text(json.dumps(folds))
    variant = write_censored_variant(1, 2, "size", 0.5, seed=seed, n_patients=3, patients_regex=r"(p\d+)_")
    cases = set(json.loads((variant.folder / "dataset.json").read_text())["dataset"])
    new = json.loads((variant.folder / "splits_final.json").read_text())
    assert len(new) == 3
    for fold in new:
        assert len(fold["train"]) == 4
        assert len(fold["val"]) == 2
        assert {*fold["train"], *fold["val"]} == cases
        assert not {case[:2] for case in fold["train"]} & {case[:2] for case in fold["val"]}
    (note,) = variant.notes
    assert note == "a fold of the source would be empty on one side: 3 new folds by patient"
    assert json.loads((variant.folder / "censoring.json").read_text())["splits"] == note


def test_patients_only_leaves_labels_whole(raw: Path) -> None:
    write_dataset(raw / "Dataset001_Many", MANY)
    variant = write_censored_variant(1, 2, None, n_patients=5)
    assert variant.folder.name == "Dataset002_Many5Patients"
    assert (variant.n_lesions, variant.n_censored) == (5, 0)
    record = json.loads((variant.folder / "censoring.json").read_text())
    assert (record["mode"], record["rate"], record["patients"]["grouping"]) == (None, None, "every case is a patient")


@pytest.mark.parametrize(
    ("table", "regex", "message"),
    [
        ("case,patient\np1_t1,p1\n", None, r"cases\.csv: case p1_t2 has no row with its patient"),
        ("case,who\n", None, r"cases\.csv: expected the columns case and patient"),
        (None, "(", r"patients regex must be a regular expression, got '\('"),
        (None, "q(.)", r"patients regex 'q\(.\)' does not match case p1_t1"),
    ],
)
def test_unknown_patients_are_refused(raw: Path, table: str | None, regex: str | None, message: str) -> None:
    source = write_dataset(raw / "Dataset001_Many", MANY)
    if table is not None:
        (source / "cases.csv").write_text(table)
    with pytest.raises(InputError, match=message):
        write_censored_variant(1, 2, None, n_patients=2, patients_regex=regex)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "list"}, "mode list needs a CSV of lesions and no rate"),
        ({"mode": "list", "rate": 0.5, "lesion_list": Path("x.csv")}, "mode list needs a CSV of lesions and no rate"),
        ({"mode": "list", "lesion_list": Path("nowhere.csv")}, r"list of lesions not found: nowhere\.csv"),
        (
            {"mode": "size", "rate": 0.5, "lesion_list": Path("x.csv")},
            "a CSV of lesions is for mode list, got mode size",
        ),
        ({"mode": "size"}, "mode size needs a rate"),
        ({"mode": None}, "expected a mode, a number of patients, or both"),
        ({"mode": None, "n_patients": 2, "rate": 0.5}, "a rate needs a mode"),
        ({"mode": "size", "rate": 0.5, "cases": "test"}, "cases must be train or all, got 'test'"),
        ({"mode": "size", "rate": 0.5, "patients_regex": "x"}, "a patients regex needs a number of patients"),
    ],
)
def test_arguments_that_do_not_go_together(phantom: Path, raw: Path, arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        write_censored_variant(501, 511, **arguments)
    assert list(raw.iterdir()) == [phantom]


def test_readers_miss_without_a_rate(phantom: Path) -> None:
    variant = write_censored_variant(501, 511, "reader", seed=2)
    record = json.loads((variant.folder / "censoring.json").read_text())
    rates = [miss_rate(float(row["diameter_mm"])) for row in read_csv(variant.folder)]
    assert record["rate"] is None
    assert record["expected_rate"] == pytest.approx(np.mean(rates), rel=1e-9)
    half = write_censored_variant(501, 512, "reader", 0.5, seed=2, name="Half")
    gone = [{(r["case"], r["id"]) for r in read_csv(v.folder) if r["status"] == "censored"} for v in (variant, half)]
    assert (gone[0] < gone[1]) == (np.mean(rates) < 0.5)


def test_unknown_label_values_are_refused(raw: Path) -> None:
    source = write_dataset(raw / "Dataset001_Two", TWO_CASES)
    label = TWO_CASES["b"].copy()
    label[3, 3, 3:5] = (6, 9)
    write_image(source / "labelsTr" / "b.nii.gz", Image(label, PLAIN))
    message = r"^case b: .*b\.nii\.gz: unknown label value 6, 9 in 2 voxels, expected 0, 1, 2 \(dataset\.json\)$"
    with pytest.raises(InputError, match=message):
        write_censored_variant(1, 2, "size", 0.5)
    assert list(raw.iterdir()) == [source]


@pytest.mark.parametrize("ignore", [None, 3])
def test_sparse_labels_restore_what_censoring_the_array_gives(ignore: int | None) -> None:
    rng = np.random.default_rng(0)
    array = (rng.random((9, 20, 20)) < 0.05).astype(np.int16) * rng.integers(1, 3, (9, 20, 20)).astype(np.int16)
    if ignore:
        array[:, 18:, :3] = ignore
    label = Image(array, PLAIN)
    lesions = label_lesions(label, ignore)
    sparse = sparse_label(label, lesions, ignore)
    assert sparse is not None
    for ids in ([], [1], list(range(1, len(lesions) + 1, 2))):
        found, expected = sparse.without(ids), censor_label(label, ignore, ids)
        np.testing.assert_array_equal(found.array, expected.array)
        assert found.array.dtype == expected.array.dtype
    full = Image(np.ones((3, 4, 5), np.uint8), PLAIN)
    assert sparse_label(full, label_lesions(full, None), None) is None


def test_a_label_that_is_too_full_to_keep_is_read_again(raw: Path) -> None:
    write_dataset(raw / "Dataset001_Full", {"a": np.ones((4, 6, 8), np.uint8), "b": volume((0, 0, 0, 1))})
    variant = write_censored_variant(1, 2, "size", 0.5)
    assert read_image(variant.folder / "labelsTr" / "a.nii.gz").array.all()
    assert not read_image(variant.folder / "labelsTr" / "b.nii.gz").array.any()


@pytest.mark.parametrize(
    ("labels", "ignore"),
    [(TWO_CLASSES, 3), ({**TWO_CLASSES, "ignore": 3}, 3), ({"background": 0, "all": [1, 2, 255]}, 256)],
)
def test_lesions_can_be_ignored_instead_of_deleted(raw: Path, labels: dict[str, Any], ignore: int) -> None:
    extra = {"labels": labels, "regions_class_order": [1]} if "all" in labels else {"labels": labels}
    write_dataset(raw / "Dataset001_Two", TWO_CASES, **extra)
    variant = write_censored_variant(1, 2, "size", 0.5, ignored=True)
    deleted = write_censored_variant(1, 3, "size", 0.5, name="Deleted")
    assert (variant.n_censored, variant.n_lesions) == (2, 4)
    assert json.loads((variant.folder / "dataset.json").read_text())["labels"] == {**labels, "ignore": ignore}
    record = json.loads((variant.folder / "censoring.json").read_text())
    assert record.pop("ignored")
    assert record == json.loads((deleted.folder / "censoring.json").read_text())
    for case, whole in TWO_CASES.items():
        found = read_image(variant.folder / "labelsTr" / f"{case}.nii.gz").array
        without = read_image(deleted.folder / "labelsTr" / f"{case}.nii.gz").array
        np.testing.assert_array_equal(found, np.where(whole == without, whole.astype(int), ignore))
        assert found.dtype == (np.uint16 if ignore > 255 else np.uint8)


def test_ignored_large_label_maps(raw: Path) -> None:
    dense = np.ones((4, 6, 8), np.uint8)  # not kept as a list of voxels
    write_dataset(raw / "Dataset001_Dense", {"a": dense})
    variant = write_censored_variant(1, 2, "stochastic", 1.0, ignored=True)
    assert np.all(read_image(variant.folder / "labelsTr" / "a.nii.gz").array == 3)


def test_what_is_ignored_must_be_chosen(raw: Path) -> None:
    write_dataset(raw / "Dataset001_Two", TWO_CASES)
    with pytest.raises(InputError, match=r"^lesions to ignore need a mode that chooses them$"):
        write_censored_variant(1, 2, None, n_patients=1, ignored=True)


@pytest.mark.parametrize("name", ["../../Dataset009_Victim/labelsTr/a", "/abs", ".hidden", "a.nii.gz"])
def test_a_case_name_is_no_path(raw: Path, name: str) -> None:
    victim = write_dataset(raw / "Dataset009_Victim", TWO_CASES) / "labelsTr" / "a.nii.gz"
    before = victim.read_bytes()
    source = write_dataset(raw / "Dataset001_Downloaded", TWO_CASES)
    content = json.loads((source / "dataset.json").read_text())
    content["dataset"] = {name: {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}
    (source / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="a case name must be a plain file name"):
        write_censored_variant(1, 2, "size", 1.0)
    assert victim.read_bytes() == before


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        ({"train": ["a", "b"], "val": ["b"]}, "fold 0 trains on case b and validates on it"),
        ({"train": ["a"], "val": ["b.nii.gz"]}, "fold 0 names b.nii.gz, which is none of the training cases"),
        ({"train": ["a"]}, "expected the key val"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"n_patients": 1}])
def test_splits_that_leak_are_neither_copied_nor_replaced(
    raw: Path, fold: dict[str, Any], message: str, options: dict[str, Any]
) -> None:
    source = write_dataset(raw / "Dataset001_Two", TWO_CASES)
    (source / "splits_final.json").write_text(json.dumps([fold]))
    with pytest.raises(InputError, match=message):
        write_censored_variant(1, 2, "size", 1.0, **options)
    assert not (raw / "Dataset002_TwoCensored").exists()
