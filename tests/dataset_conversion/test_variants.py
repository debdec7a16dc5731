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

import numpy as np
import pytest

from nnunet_lopsided import __version__
from nnunet_lopsided.dataset_conversion.lesion_labels import censor_label
from nnunet_lopsided.dataset_conversion.phantom import PhantomSettings, write_phantom_dataset
from nnunet_lopsided.dataset_conversion.variants import lesion_table, write_censored_variant
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Geometry, Image, read_image, write_image
from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.nnunet_layout import RawDataset, raw_dataset

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
    folder: Path, label_maps: dict[str, np.ndarray], geometry: Geometry = PLAIN, ending: str = ".nii.gz", **extra
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


def volume(*voxels: tuple[int, int, int, int], dtype: type = np.uint8) -> np.ndarray:
    """Zeros of shape (4, 6, 8) but for ``(z, y, x, value)``."""
    array = np.zeros((4, 6, 8), dtype)
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
    table = lesion_table(RawDataset(folder))
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
    extra = {
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
    two = write_censored_variant(501, 512, "stochastic", 0.5, seed=7, name="Other", n_processes=1)
    other = write_censored_variant(501, 513, "stochastic", 0.5, seed=8)
    with nnunet_paths(tmp_path / "elsewhere", monkeypatch) as root:
        shutil.copytree(phantom, root / phantom.name)
        far = write_censored_variant(501, 511, "stochastic", 0.5, seed=7)
    assert len(content_of(one.folder)) == 3 + 3 + 8 + 2
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
        ({"n_processes": 0}, "number of processes"),
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
    import fcntl

    unfinished = raw / ".unfinished-Dataset511_PhantomCensored"
    unfinished.mkdir()
    (unfinished / "half.json").touch()
    handle = os.open(unfinished, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="another process is writing"):
        write_censored_variant(501, 511, "size", 0.5)
    assert (unfinished / "half.json").exists()
    os.close(handle)
    assert write_censored_variant(501, 511, "size", 0.5).n_censored
    assert not unfinished.exists()


def run_hooked(hook: str, *arguments: str, send: signal.Signals | None = None) -> subprocess.CompletedProcess[str]:
    """lopsided-censor in a process of its own, with ``hook`` executed before; ``send`` a signal once it says READY."""
    program = (
        "import os, signal, sys, time\nimport nnunet_lopsided.dataset_conversion.variants as variants\n"
        "from nnunet_lopsided.commands.censor import main\n"
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
rename = Path.rename
def kill_after_moving_the_old_one_away(self, target):
    rename(self, target)
    if Path(target).name.startswith(".replaced"):
        os.kill(os.getpid(), signal.SIGKILL)
Path.rename = kill_after_moving_the_old_one_away
"""


def test_the_same_command_works_after_a_kill(phantom: Path, raw: Path) -> None:
    killed = run_hooked(KILLED_WHILE_WRITING, *ARGUMENTS)
    assert killed.returncode == -signal.SIGKILL
    assert sorted(p.name for p in raw.iterdir()) == [".unfinished-Dataset511_PhantomCensored", "Dataset501_Phantom"]
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
        assert not (after.array & ~before.array).any()


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
