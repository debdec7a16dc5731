"""A shared preprocessed folder is what nnU-Net itself would have made, file by file; and it survives accidents."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Geometry, Image, read_image, write_image
from nnunet_lopsided.variants.sharing import link_or_copy, share_preprocessed
from nnunet_lopsided.variants.writing import write_censored_variant
from tests.conftest import TinyDataset, set_paths

ENDING = ".nii.gz"


def threads_instead_of_processes(patch: pytest.MonkeyPatch) -> None:
    """Spawned processes would each import torch again."""
    patch.setenv("nnUNet_n_proc_DA", "2")
    patch.setattr(multiprocessing, "get_context", lambda method=None: SimpleNamespace(Pool=ThreadPool))
    patch.setattr("nnunetv2.utilities.utils.Pool", ThreadPool)


def stock_preprocessing(clean: Path, name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What nnU-Net makes of the dataset ``name`` with the plans of the folder ``clean``, in another root."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset
    from nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets import (
        move_plans_between_datasets,
    )

    with monkeypatch.context() as patch:
        raw = Path(os.environ["nnUNet_raw"])
        patch.setenv("nnUNet_preprocessed", str(root))
        threads_instead_of_processes(patch)
        (root / clean.name).mkdir(parents=True)
        (root / name).mkdir()
        shutil.copy(raw / name / "dataset.json", root / name)
        for plans in clean.glob("*.json"):
            content = json.loads(plans.read_text())
            if "plans_name" not in content:
                continue
            shutil.copy(plans, root / clean.name)
            move_plans_between_datasets(clean.name, name, plans.stem)
            configurations = content["configurations"]
            own = [c for c in configurations if "inherits_from" not in configurations[c]]
            present = [c for c in own if (clean / configurations[c]["data_identifier"]).is_dir()]
            preprocess_dataset(int(name[7:10]), plans.stem, present, num_processes=(1,))
    return root / name


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def assert_same(shared: Path, stock: Path) -> None:
    """Arrays and properties are equal; of other files there are only those that nnU-Net has from elsewhere."""
    extra = {".lopsided.json", "sharing.json", "splits_final.json", "dataset_fingerprint.json"}
    names = [name for name in files_of(stock) if name not in extra]
    assert [name for name in files_of(shared) if name not in extra] == names
    for name in names:
        one, other = shared / name, stock / name
        if name.endswith(".b2nd"):
            assert_same_array(one, other)
        elif name.endswith(".pkl"):
            assert_equal(pickle.loads(one.read_bytes()), pickle.loads(other.read_bytes()))
        elif name.endswith(".json"):
            assert json.loads(one.read_text()) == json.loads(other.read_text())
        else:
            assert one.read_bytes() == other.read_bytes()


def assert_same_array(one: Path, other: Path) -> None:
    import blosc2

    first, second = (blosc2.open(urlpath=str(path), mode="r", mmap_mode="r") for path in (one, other))
    assert (first.dtype, first.chunks, first.blocks) == (second.dtype, second.chunks, second.blocks)
    np.testing.assert_array_equal(first[:], second[:])


def assert_equal(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("kind", ["binary", "ignore", "regions with ignore"])
def test_it_is_what_nnunet_makes(
    kind: str,
    tiny_datasets: Callable[[str], TinyDataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny = tiny_datasets(kind)
    set_paths(tmp_path, monkeypatch)
    shutil.copytree(tiny.root / "nnUNet_raw" / tiny.name, tmp_path / "nnUNet_raw" / tiny.name)
    clean = tmp_path / "nnUNet_preprocessed" / tiny.name
    shutil.copytree(tiny.preprocessed, clean)
    variant = write_censored_variant(tiny.name, 711, "stochastic", 0.5, seed=1)
    assert 0 < variant.n_censored < variant.n_lesions
    shared = share_preprocessed(tiny.name, 711)
    assert (shared.n_linked, shared.n_copied, shared.n_cases) == (10, 0, 5)
    assert_same(shared.folder, stock_preprocessing(clean, variant.folder.name, tmp_path / "stock", monkeypatch))
    for image in clean.glob("*/*[0-9].b2nd"):
        assert (shared.folder / image.relative_to(clean)).samefile(image)
    assert any("2.5d" in json.loads(p.read_text())["configurations"] for p in shared.folder.glob("*Plans.json"))


def brain(
    rng: np.random.Generator, shape: tuple[int, int, int], zeros: float = 0.01
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Two channels that are zero outside an ellipsoid and in some voxels inside, and labels 1 and 2 in it."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    inside = (grid**2).sum(0) < 0.9
    image = rng.integers(50, 200, (2, *shape)).astype(np.int16) * inside
    image[:, rng.random(shape) < zeros] = 0
    label = np.zeros(shape, np.uint8)
    for value in (1, 1, 1, 2, 2):
        at = np.argwhere(inside)[rng.integers(inside.sum())]
        label[tuple(slice(max(a - 1, 0), a + 2) for a in at)] = value
    label[~inside] = 0
    return image, label


def write_raw(
    name: str,
    cases: Mapping[str, tuple[NDArray[Any], NDArray[Any], tuple[float, ...]]],
    ending: str = ENDING,
    **extra: Any,
) -> Path:
    """A raw dataset of cases given by channels, label and spacing."""
    folder = Path(os.environ["nnUNet_raw"]) / name
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    for case, (channels, label, spacing) in cases.items():
        n = label.ndim
        geometry = Geometry(spacing, (0.0,) * n, tuple(np.eye(n).ravel().tolist()))
        for c, channel in enumerate(channels):
            write_image(folder / "imagesTr" / f"{case}_{c:04d}{ending}", Image(channel, geometry))
        write_image(folder / "labelsTr" / f"{case}{ending}", Image(label, geometry))
    n_channels = len(next(iter(cases.values()))[0])
    content = {
        "channel_names": {str(c): f"MR{c}" for c in range(n_channels)},
        "labels": {"background": 0, "rim": 1, "core": 2},
        "numTraining": len(cases),
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(content | extra))
    return folder


def plan_and_preprocess(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None] = lambda plans: None
) -> Path:
    """Run nnU-Net on a raw dataset, with plans changed in between; returns the preprocessed folder."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet

    number = int(folder.name[7:10])
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / folder.name
    with monkeypatch.context() as patch:
        threads_instead_of_processes(patch)
        extractor = nnunet.DatasetFingerprintExtractor(number, num_processes=1)
        extractor.num_foreground_voxels_for_intensitystats = 10_000
        extractor.run()
        nnunet.plan_experiment_dataset(number)
        plans_file = preprocessed / "nnUNetPlans.json"
        plans = json.loads(plans_file.read_text())
        change(plans)
        plans_file.write_text(json.dumps(plans))
        own = [name for name, content in plans["configurations"].items() if "inherits_from" not in content]
        nnunet.preprocess_dataset(number, configurations=own, num_processes=(1,))
    return preprocessed


def test_resampled_cases_and_the_cascade(nnunet_paths: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    # Isotropic, coarse slices (resampled slice by slice), and finer ones than the plans want.
    spacings = [(2.0, 1.0, 1.0), (5.0, 1.0, 1.0), (1.5, 0.8, 0.8), (2.0, 1.0, 1.0), (2.0, 1.0, 1.0)]
    cases = {f"c{i}": (*brain(rng, (10, 30, 28)), spacing) for i, spacing in enumerate(spacings)}
    source = write_raw("Dataset720_Mixed", cases)

    def add_cascade(plans: dict[str, Any]) -> None:
        configurations = plans["configurations"]
        low = json.loads(json.dumps(configurations["3d_fullres"]))
        low |= {"data_identifier": "nnUNetPlans_3d_lowres", "spacing": [3.0, 1.7, 1.7], "next_stage": "cascade"}
        configurations["3d_lowres"] = low
        configurations["cascade"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}

    clean = plan_and_preprocess(source, monkeypatch, add_cascade)
    variant = write_censored_variant(720, 721, "stochastic", 0.6, seed=2)
    shared = share_preprocessed(720, 721)
    assert sorted(shared.configurations) == ["nnUNetPlans_2d", "nnUNetPlans_3d_fullres", "nnUNetPlans_3d_lowres"]
    assert shared.n_linked == 3 * (5 - len(shared.preprocessed_anew)) > 0
    assert_same(shared.folder, stock_preprocessing(clean, variant.folder.name, nnunet_paths / "stock", monkeypatch))


@pytest.mark.parametrize("masked", [True, False])
def test_labels_outside_the_nonzero_region(masked: bool, nnunet_paths: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With use_mask_for_norm such labels change the images: those cases cannot be shared, all others can."""
    rng = np.random.default_rng(1)
    cases = {f"c{i}": (*brain(rng, (8, 24, 26)), (1.0, 1.0, 1.0)) for i in range(4)}
    for name, (image, label, _) in cases.items():
        if name != "c0":
            label[(image == 0).all(0)] = 0
        else:  # a lesion of which one half is outside of the brain
            image[:, 3:5, :, 4:6] = 0
            label[3:5, 10:12, 4:8] = 1
        label[0, 0, 0] = 0
    source = write_raw("Dataset722_Outside", cases)

    def mask(plans: dict[str, Any]) -> None:
        for configuration in plans["configurations"].values():
            configuration["use_mask_for_norm"] = [masked, masked]

    clean = plan_and_preprocess(source, monkeypatch, mask)
    variant = write_censored_variant(722, 723, "size", 1.0)
    shared = share_preprocessed(722, 723)
    assert shared.preprocessed_anew == (("c0",) if masked else ())
    stock = stock_preprocessing(clean, variant.folder.name, nnunet_paths / "stock", monkeypatch)
    assert_same(shared.folder, stock)
    # And back, to whole labels from what was preprocessed with none: now labels appear outside.
    shutil.rmtree(stock.parent / clean.name)
    monkeypatch.setenv("nnUNet_preprocessed", str(stock.parent))
    back = share_preprocessed(723, 722)
    assert back.preprocessed_anew == shared.preprocessed_anew
    assert_same(back.folder, clean)


def test_ct(nnunet_paths: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its normalisation uses the foreground's intensities: those of the source, from its plans."""
    rng = np.random.default_rng(3)
    cases = {f"c{i}": (*brain(rng, (8, 20, 20)), (3.0, 1.0, 1.0)) for i in range(3)}
    source = write_raw("Dataset724_CT", cases, channel_names={"0": "CT", "1": "CT"})
    clean = plan_and_preprocess(source, monkeypatch)
    variant = write_censored_variant(724, 725, "size", 0.5)
    shared = share_preprocessed(724, 725)
    assert_same(shared.folder, stock_preprocessing(clean, variant.folder.name, nnunet_paths / "stock", monkeypatch))


def test_2d_images(nnunet_paths: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    cases = {}
    for i in range(4):
        image, label = brain(rng, (3, 40, 36))
        cases[f"c{i}"] = (image[:, 1].astype(np.uint8), label[1], (1.0, 1.0))
    source = write_raw("Dataset726_Flat", cases, ending=".png")
    clean = plan_and_preprocess(source, monkeypatch)
    variant = write_censored_variant(726, 727, "stochastic", 0.5)
    assert variant.n_censored
    shared = share_preprocessed(726, 727)
    assert shared.configurations == ("nnUNetPlans_2d",)
    assert_same(shared.folder, stock_preprocessing(clean, variant.folder.name, nnunet_paths / "stock", monkeypatch))


@pytest.fixture(scope="module")
def small_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with dataset 730, preprocessed, and its variants 731 (all cases) and 732 (three of its five)."""
    root = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(5)
    with pytest.MonkeyPatch.context() as patch:
        set_paths(root, patch)
        cases = {f"c{i}": (*brain(rng, (4, 16, 18), zeros=0), (2.0, 1.0, 1.0)) for i in range(5)}
        source = write_raw("Dataset730_Small", cases)
        folds = [{"train": ["c0", "c1", "c2", "c3"], "val": ["c4"]}, {"train": ["c4", "c1"], "val": ["c0", "c2", "c3"]}]
        (source / "splits_final.json").write_text(json.dumps(folds))
        plan_and_preprocess(source, patch)
        write_censored_variant(730, 731, "stochastic", 0.5)
        write_censored_variant(730, 732, None, n_patients=3)
    return root


@pytest.fixture
def small(small_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, with nnU-Net's paths set."""
    shutil.copytree(small_source, tmp_path, dirs_exist_ok=True, symlinks=True)
    set_paths(tmp_path, monkeypatch)
    return tmp_path


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_of(folder)}


def test_what_is_written(small: Path) -> None:
    before = bytes_of(small / "nnUNet_preprocessed" / "Dataset730_Small")
    shared = share_preprocessed("Dataset730_Small", "Dataset731_SmallCensored")
    assert bytes_of(small / "nnUNet_preprocessed" / "Dataset730_Small") == before, "the source is not changed"
    folds = json.loads((shared.folder / "splits_final.json").read_text())
    assert folds == json.loads(before["splits_final.json"])
    assert (shared.folder / "dataset_fingerprint.json").read_bytes() == before["dataset_fingerprint.json"]
    assert json.loads((shared.folder / "nnUNetPlans.json").read_text())["dataset_name"] == "Dataset731_SmallCensored"
    record = json.loads((shared.folder / "sharing.json").read_text())
    assert record["source_dataset"] == "Dataset730_Small"
    assert (record["n_cases"], record["n_files_linked"], record["n_files_copied"]) == (5, 10, 0)
    again = bytes_of(shared.folder)
    assert bytes_of(share_preprocessed(730, 731, overwrite=True, n_workers=1).folder) == again


def test_fewer_patients_and_their_splits(small: Path) -> None:
    kept = set(json.loads((small / "nnUNet_raw/Dataset732_Small3Patients/dataset.json").read_text())["dataset"])
    assert len(kept) == 3
    shared = share_preprocessed(730, 732)
    assert {p.stem for p in shared.folder.glob("nnUNetPlans_2d/*.pkl")} == kept
    for fold, whole in zip(
        json.loads((shared.folder / "splits_final.json").read_text()),
        json.loads((small / "nnUNet_preprocessed/Dataset730_Small/splits_final.json").read_text()),
        strict=True,
    ):
        for part in ("train", "val"):
            assert fold[part] == [case for case in whole[part] if case in kept]


def test_folds_that_fewer_patients_leave_empty_are_made_anew(small: Path) -> None:
    kept = sorted(json.loads((small / "nnUNet_raw/Dataset732_Small3Patients/dataset.json").read_text())["dataset"])
    everything = [f"c{i}" for i in range(5)]
    folds = [{"train": kept, "val": [case for case in everything if case not in kept]}]
    (small / "nnUNet_preprocessed/Dataset730_Small/splits_final.json").write_text(json.dumps(folds))
    own = small / "nnUNet_raw/Dataset732_Small3Patients/splits_final.json"
    own.write_text(json.dumps([{"train": kept[:2], "val": kept[2:]}]))
    shared = share_preprocessed(730, 732)
    assert json.loads((shared.folder / "splits_final.json").read_text()) == json.loads(own.read_text())
    assert shared.notes == ()

    own.unlink()
    shared = share_preprocessed(730, 732, overwrite=True)
    new = json.loads((shared.folder / "splits_final.json").read_text())
    assert sorted(case for fold in new for case in fold["val"]) == kept
    assert all(len(fold["train"]) == 2 for fold in new)
    assert shared.notes == ("a fold of the source would be empty on one side: 3 new folds by patient",)
    assert json.loads((shared.folder / "sharing.json").read_text())["notes"] == list(shared.notes)


def test_another_label_scheme(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle that marks what was deleted as ignored: labels and classes differ, images do not."""
    folder = small / "nnUNet_raw" / "Dataset731_SmallCensored"
    content = json.loads((folder / "dataset.json").read_text())
    content["labels"] |= {"ignore": 3}
    (folder / "dataset.json").write_text(json.dumps(content))
    for path in (folder / "labelsTr").iterdir():
        label = read_image(path)
        array = label.array.copy()
        array[:, :3] = 3
        write_image(path, Image(array, label.geometry))
    shared = share_preprocessed(730, 731)
    clean = small / "nnUNet_preprocessed" / "Dataset730_Small"
    assert_same(shared.folder, stock_preprocessing(clean, folder.name, small / "stock", monkeypatch))


def test_another_file_system_is_copied_from(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse)
        shared = share_preprocessed(730, 731)
    assert (shared.n_linked, shared.n_copied) == (0, 10)
    copied = bytes_of(shared.folder)
    linked = share_preprocessed(730, 731, overwrite=True)
    names = [name for name in copied if name not in ("sharing.json", ".lopsided.json")]
    assert {name: copied[name] for name in names} == {name: bytes_of(linked.folder)[name] for name in names}


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second file system at /dev/shm")
def test_a_real_second_file_system(tmp_path: Path) -> None:
    other = Path("/dev/shm") / f"lopsided-test-{os.getpid()}"
    if os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("/dev/shm is the same file system")
    other.write_bytes(b"image")
    try:
        assert link_or_copy(other, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == b"image"
        assert not link_or_copy(tmp_path / "copy", tmp_path / "link")
    finally:
        other.unlink()


def break_gzip(raw: Path, _: Path) -> None:
    path = raw / "labelsTr" / "c1.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])


def unknown_value(raw: Path, _: Path) -> None:
    path = raw / "labelsTr" / "c1.nii.gz"
    label = read_image(path)
    write_image(path, Image(np.full_like(label.array, 6), label.geometry))


def other_shape(raw: Path, _: Path) -> None:
    path = raw / "labelsTr" / "c1.nii.gz"
    label = read_image(path)
    write_image(path, Image(label.array[:-1], label.geometry))


def other_image(raw: Path, _: Path) -> None:
    content = json.loads((raw / "dataset.json").read_text())
    content["dataset"]["c1"]["images"][1] = content["dataset"]["c2"]["images"][1]
    (raw / "dataset.json").write_text(json.dumps(content))


def other_channels(raw: Path, _: Path) -> None:
    content = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps(content | {"channel_names": {"0": "CT", "1": "MR1"}}))


def new_case(raw: Path, _: Path) -> None:
    content = json.loads((raw / "dataset.json").read_text())
    content["dataset"]["new"] = content["dataset"]["c2"]
    (raw / "dataset.json").write_text(json.dumps(content))


def no_plans(_: Path, clean: Path) -> None:
    (clean / "nnUNetPlans.json").unlink()


def not_preprocessed(_: Path, clean: Path) -> None:
    for folder in clean.glob("nnUNetPlans_*"):
        shutil.rmtree(folder)


def half_preprocessed(_: Path, clean: Path) -> None:
    (clean / "nnUNetPlans_2d" / "c3.pkl").unlink()


def broken_segmentation(_: Path, clean: Path) -> None:
    (clean / "nnUNetPlans_2d" / "c3_seg.b2nd").write_bytes(b"nothing")


def empty_image(_: Path, clean: Path) -> None:
    image = clean / "nnUNetPlans_2d" / "c3.b2nd"
    image.unlink()
    image.touch()


def image_of_another_shape(_: Path, clean: Path) -> None:
    import blosc2

    image = clean / "nnUNetPlans_2d" / "c3.b2nd"
    image.unlink()
    image.write_bytes(blosc2.asarray(np.zeros((2, 3, 16, 18), np.float32)).to_cframe())


def damaged_chunk(_: Path, clean: Path) -> None:
    path = clean / "nnUNetPlans_2d" / "c3_seg.b2nd"
    content = bytearray(path.read_bytes())
    start = int.from_bytes(content[11:15], "big")  # of the first chunk: the length of the header
    content[start + 32 : start + 56] = b"\xff" * 24
    path.write_bytes(content)


def old_format(_: Path, clean: Path) -> None:
    for path in (clean / "nnUNetPlans_2d").glob("*.b2nd"):
        path.rename(path.with_suffix(".npz"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_gzip, r"cannot read image .*c1\.nii\.gz: broken gzip: the file ends too early"),
        (unknown_value, r"case c1: .*c1\.nii\.gz: unknown label value 6 in [0-9]+ voxels, expected 0, 1, 2 "),
        (other_shape, r"case c1: expected shape \(4, 16, 18\), as preprocessed, found \(3, 16, 18\)"),
        (other_image, r"case c1: expected .*c2_0001\.nii\.gz to equal the source's .*c1_0001\.nii\.gz, but it differs"),
        (other_channels, r"dataset\.json: expected channel_names to be {'0': 'MR0', '1': 'MR1'}"),
        (new_case, "case new: is no training case of Dataset730_Small"),
        (no_plans, "no plans found; run nnUNetv2_plan_and_preprocess first"),
        (not_preprocessed, "nothing is preprocessed; run nnUNetv2_preprocess first"),
        (half_preprocessed, r"case c3: expected .*nnUNetPlans_2d/c3\.pkl, found nothing; preprocess the source again"),
        (broken_segmentation, "case c3: cannot read its files in .*nnUNetPlans_2d"),
        (empty_image, "case c3: cannot read its files in .*nnUNetPlans_2d"),
        (image_of_another_shape, r"case c3: expected .*c3\.b2nd to have the shape .*, found \(3, 16, 18\)"),
        (damaged_chunk, r"case c3: c3_seg\.b2nd in nnUNetPlans_2d is damaged: "),
        (old_format, "older nnU-Net, expected .b2nd; run nnUNetv2_preprocess"),
    ],
)
def test_faults_name_case_and_file_and_leave_nothing(
    small: Path, damage: Callable[[Path, Path], None], message: str
) -> None:
    preprocessed = small / "nnUNet_preprocessed"
    damage(small / "nnUNet_raw" / "Dataset731_SmallCensored", preprocessed / "Dataset730_Small")
    with pytest.raises(InputError, match=message):
        share_preprocessed(730, 731)
    assert [path.name for path in preprocessed.iterdir()] == ["Dataset730_Small"]


def test_what_it_did_not_make_is_not_replaced(small: Path) -> None:
    folder = small / "nnUNet_preprocessed" / "Dataset731_SmallCensored"
    folder.mkdir()
    with pytest.raises(InputError, match="exists; --overwrite replaces it if this command made it"):
        share_preprocessed(730, 731)
    with pytest.raises(InputError, match=r"not replaced: it holds no sharing\.json"):
        share_preprocessed(730, 731, overwrite=True)
    with pytest.raises(InputError, match="Dataset730_Small is source and variant"):
        share_preprocessed(730, "Dataset730_Small")


def test_two_datasets_of_one_id_are_not_mixed(small: Path) -> None:
    (small / "nnUNet_preprocessed" / "Dataset730_Small").rename(small / "nnUNet_preprocessed" / "Dataset730_Other")
    with pytest.raises(
        InputError, match="730: expected one dataset of this id, found Dataset730_Other and Dataset730_Small"
    ):
        share_preprocessed(730, 731)


@pytest.mark.parametrize("fold", [{"train": ["c1", "c2"], "val": ["c2"]}, {"train": ["c1"], "val": ["c2.nii.gz"]}])
def test_splits_of_the_source_that_leak(small: Path, fold: dict[str, list[str]]) -> None:
    splits = small / "nnUNet_preprocessed" / "Dataset730_Small" / "splits_final.json"
    splits.write_text(json.dumps([fold]))
    with pytest.raises(InputError, match=r"splits_final\.json: fold 0 (trains on case c2 and|names c2\.nii\.gz)"):
        share_preprocessed(730, 731)
    assert not (small / "nnUNet_preprocessed" / "Dataset731_SmallCensored").exists()


def test_a_full_disk_leaves_nothing_and_the_next_run_works(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == "c3.pkl":
            raise OSError(28, "No space left on device", str(path))
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(InputError, match=r"No space left on device: nnUNetPlans_2d/c3\.pkl"):
            share_preprocessed(730, 731)
    assert [path.name for path in (small / "nnUNet_preprocessed").iterdir()] == ["Dataset730_Small"]
    assert share_preprocessed(730, 731).n_linked == 10


KILL_LOOP = """
import os, signal, sys, time
import nnunetv2.preprocessing.preprocessors.default_preprocessor  # slow to import; the loop is to hit the work itself
from nnunet_lopsided.files.parallel import import_readers
from nnunet_lopsided.variants.sharing import share_preprocessed
import_readers()
start = time.monotonic()
share_preprocessed(730, 732)
duration = time.monotonic() - start
n_killed = 0
for step in range(20):
    child = os.fork()
    if child == 0:
        share_preprocessed(730, 731, overwrite=True)
        os._exit(0)
    time.sleep(duration * step / 12)
    os.kill(child, signal.SIGKILL)
    n_killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
share_preprocessed(730, 731, overwrite=True)
print("killed", n_killed)
"""


def test_kill_9_in_a_loop_then_run_again(small: Path) -> None:
    expected = bytes_of(share_preprocessed(730, 731).folder)
    before = bytes_of(small / "nnUNet_preprocessed" / "Dataset730_Small")
    shutil.rmtree(small / "nnUNet_preprocessed" / "Dataset731_SmallCensored")
    done = subprocess.run([sys.executable, "-c", KILL_LOOP], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split("killed ")[1]) >= 5
    assert bytes_of(small / "nnUNet_preprocessed" / "Dataset731_SmallCensored") == expected
    assert bytes_of(small / "nnUNet_preprocessed" / "Dataset730_Small") == before
    names = sorted(path.name for path in (small / "nnUNet_preprocessed").iterdir())
    assert names == ["Dataset730_Small", "Dataset731_SmallCensored", "Dataset732_Small3Patients"]


def test_a_read_only_source(small: Path) -> None:
    """Links do not need to write to the source; root may write anywhere, so only what was written is compared."""
    clean = small / "nnUNet_preprocessed" / "Dataset730_Small"
    before = bytes_of(clean)
    for path in (clean, *clean.rglob("*"), *(small / "nnUNet_raw" / "Dataset730_Small").rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert share_preprocessed(730, 731).n_linked == 10
        assert bytes_of(clean) == before
    finally:
        for path in (clean, *clean.rglob("*"), *(small / "nnUNet_raw" / "Dataset730_Small").rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
