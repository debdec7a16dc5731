"""Beliefs from a folder of images to files beside the preprocessed cases; and what nnU-Net sees of these."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import blosc2
import numpy as np
import pytest
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetDatasetBlosc2
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.folder_record import RECORD_FILE
from nnunet_lopsided.files.json import file_digest
from nnunet_lopsided.images import Geometry, Image, read_image, write_image
from nnunet_lopsided.nnunet.beliefs import BELIEFS_FILE, FOLDER, BeliefFolder
from nnunet_lopsided.nnunet.configurations import Configuration
from nnunet_lopsided.nnunet.dataset_json import LabelScheme
from nnunet_lopsided.nnunet.preprocessed_case import CleanSegmentation
from nnunet_lopsided.variants.sharing import share_preprocessed
from nnunet_lopsided.variants.softening import _Softening, belief_files, soften
from nnunet_lopsided.variants.writing import write_censored_variant
from tests.conftest import TinyDataset, set_paths

CASES = [f"phantom_{i:03d}" for i in range(5)]


@pytest.fixture
def copy_of(
    tiny_datasets: Callable[[str], TinyDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], TinyDataset]:
    """A kind of labels -> the tiny dataset in a root of its own, which may be changed."""

    def copy(kind: str) -> TinyDataset:
        tiny = tiny_datasets(kind)
        set_paths(tmp_path, monkeypatch)
        for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
            shutil.copytree(tiny.root / variable / tiny.name, tmp_path / variable / tiny.name)
        return TinyDataset(tmp_path, tiny.name, tiny.dataset_json)

    return copy


def label_of(dataset: TinyDataset, case: str) -> Image:
    return read_image(dataset.root / "nnUNet_raw" / dataset.name / "labelsTr" / f"{case}.nii.gz")


def write_beliefs(folder: Path, dataset: TinyDataset, value: float = 1.0, cases: list[str] = CASES[:2]) -> Path:
    """``value`` on every lesion of these cases."""
    folder.mkdir()
    for case in cases:
        label = label_of(dataset, case)
        write_image(folder / f"{case}.nii.gz", Image((label.array != 0).astype(np.float32) * value, label.geometry))
    return folder


def segmentation(folder: Path, case: str) -> NDArray[Any]:
    return blosc2.open(urlpath=str(folder / f"{case}_seg.b2nd"), mode="r")[:]


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres", "2.5d"])
def test_beliefs_lie_where_the_labels_do(
    copy_of: Callable[[str], TinyDataset], tmp_path: Path, configuration: str
) -> None:
    dataset = copy_of("binary")
    source = write_beliefs(tmp_path / "beliefs", dataset, 0.2)
    made = soften(701, configuration, source)
    data = dataset.preprocessed / ("nnUNetPlans_2d" if configuration == "2d" else "nnUNetPlans_3d_fullres")
    assert (made.folder, made.n_cases, made.without) == (data / FOLDER, 5, tuple(CASES[2:]))
    assert sorted(path.name for path in made.folder.iterdir()) == [
        RECORD_FILE,
        BELIEFS_FILE,
        *(f"{c}.b2nd" for c in CASES[:2]),
    ]
    folder = BeliefFolder(data)
    assert [case for case in CASES if folder.has(case, ("lesion",))] == CASES[:2]
    for case in CASES[:2]:  # the phantoms are not resampled
        np.testing.assert_array_equal(folder.open(case)[:], 51 * (segmentation(data, case) > 0))
    content = json.loads((made.folder / BELIEFS_FILE).read_text())
    assert content["cases"] == {c: {f"{c}.nii.gz": file_digest(source / f"{c}.nii.gz")} for c in CASES[:2]}
    assert {key: content[key] for key in ("configuration", "plans", "source", "levels")} == {
        **{"configuration": configuration, "plans": "nnUNetPlans"},
        **{"source": str(source), "levels": 255},
    }


def test_nnunet_does_not_take_them_for_cases(copy_of: Callable[[str], TinyDataset], tmp_path: Path) -> None:
    dataset = copy_of("binary")
    data = dataset.preprocessed / "nnUNetPlans_2d"
    before = {path.name: path.stat().st_mtime_ns for path in data.iterdir()}
    soften(701, "2d", write_beliefs(tmp_path / "beliefs", dataset))
    assert {path.name: path.stat().st_mtime_ns for path in data.iterdir() if path.is_file()} == before
    assert infer_dataset_class(str(data)) is nnUNetDatasetBlosc2
    assert sorted(nnUNetDatasetBlosc2.get_identifiers(str(data))) == CASES


def test_beliefs_are_not_shared_with_a_variant(copy_of: Callable[[str], TinyDataset], tmp_path: Path) -> None:
    dataset = copy_of("binary")
    source = write_beliefs(tmp_path / "beliefs", dataset)
    soften(701, "2d", source)
    write_censored_variant(dataset.name, 711, "stochastic", 0.5, seed=1)
    shared = share_preprocessed(dataset.name, 711)
    data = shared.folder / "nnUNetPlans_2d"
    assert not (data / FOLDER).exists()
    assert (data / f"{CASES[0]}.b2nd").samefile(dataset.preprocessed / "nnUNetPlans_2d" / f"{CASES[0]}.b2nd")
    mine = {path: file_digest(path) for path in dataset.preprocessed.rglob("*") if path.is_file()}
    soften(711, "2d", source)  # the variant's own; the source's stay
    assert (data / FOLDER / BELIEFS_FILE).is_file()
    assert {path: file_digest(path) for path in dataset.preprocessed.rglob("*") if path.is_file()} == mine
    share_preprocessed(dataset.name, 711, overwrite=True)
    assert not (data / FOLDER).exists()


def test_overwriting(copy_of: Callable[[str], TinyDataset], tmp_path: Path) -> None:
    dataset = copy_of("binary")
    first = soften(701, "2d", write_beliefs(tmp_path / "beliefs", dataset))
    other = write_beliefs(tmp_path / "other", dataset, 0.5, CASES[3:4])
    with pytest.raises(InputError, match="lopsided_beliefs exists; --overwrite replaces it"):
        soften(701, "2d", other)
    bad = write_beliefs(tmp_path / "bad", dataset, 2.0)
    with pytest.raises(
        InputError, match=r"case phantom_000: expected finite probabilities within \[0, 1\], found 0.0 to"
    ):
        soften(701, "2d", bad, overwrite=True)
    assert sorted(p.name for p in first.folder.iterdir())[2:] == [f"{c}.b2nd" for c in CASES[:2]], "still whole"
    assert not list(first.folder.parent.glob(".*"))
    soften(701, "2d", other, overwrite=True)
    assert sorted(p.name for p in first.folder.iterdir())[2:] == [f"{CASES[3]}.b2nd"]


def test_several_classes_and_arrays(copy_of: Callable[[str], TinyDataset], tmp_path: Path) -> None:
    dataset = copy_of("multi-class")
    source, case = tmp_path / "beliefs", CASES[0]
    source.mkdir()
    label = label_of(dataset, case)
    write_image(source / f"{case}__core.nii.gz", Image((label.array == 2) * np.float32(0.4), label.geometry))
    rng = np.random.default_rng(0)
    softmax = rng.random((3, *label.array.shape)).astype(np.float16)
    softmax /= softmax.sum(0)
    np.savez_compressed(source / f"{CASES[1]}.npz", probabilities=softmax)
    np.save(source / f"{CASES[2]}__rim.npy", softmax[1])
    soften(dataset.name, "3d_fullres", source)
    data = dataset.preprocessed / "nnUNetPlans_3d_fullres"
    folder = BeliefFolder(data)
    assert folder.content["classes"] == ["rim", "core"]
    assert folder.has(case, ("rim", "core"))
    np.testing.assert_array_equal(folder.open(case)[:][1:], 102 * (segmentation(data, case) == 2))
    assert not folder.open(case)[:][0].any()
    both, one = (folder.open(c)[:].astype(float) / 255 for c in CASES[1:3])
    assert len(both) == len(one) == 2
    inside = tuple(slice(*b) for b in _box(data, CASES[1]))
    np.testing.assert_allclose(both, softmax[1:][(slice(None), *inside)], atol=1 / 255)
    inside = tuple(slice(*b) for b in _box(data, CASES[2]))
    np.testing.assert_allclose(one[0], softmax[1][inside], atol=1 / 509)
    assert not one[1].any()


def _box(data: Path, case: str) -> list[list[int]]:
    import pickle

    box: list[list[int]] = pickle.loads((data / f"{case}.pkl").read_bytes())["bbox_used_for_cropping"]
    return box


def test_exclusive_classes_sum_to_at_most_1(copy_of: Callable[[str], TinyDataset], tmp_path: Path) -> None:
    source, case = tmp_path / "beliefs", CASES[0]
    source.mkdir()
    for kind, number in (("multi-class", 702), ("regions", 703)):
        dataset = copy_of(kind)
        label = label_of(dataset, case)
        shutil.rmtree(source)
        source.mkdir()
        for name in dataset.dataset_json["labels"]:
            if name != "background":
                full = np.full(label.array.shape, 0.7, np.float32)
                write_image(source / f"{case}__{name}.nii.gz", Image(full, label.geometry))
        if kind == "regions":
            soften(number, "2d", source)
            folder = BeliefFolder(dataset.preprocessed / "nnUNetPlans_2d")
            assert folder.has(case, ("whole", "core"))
            continue
        with pytest.raises(InputError, match=r"expected beliefs that sum to at most 1, found 1.4 in"):
            soften(number, "2d", source)


def test_images_and_labels_must_lie_in_the_same_place(copy_of: Callable[[str], TinyDataset], tmp_path: Path) -> None:
    dataset = copy_of("binary")
    source = write_beliefs(tmp_path / "beliefs", dataset, cases=CASES[:1])
    image = read_image(source / f"{CASES[0]}.nii.gz")
    moved = Geometry(image.geometry.spacing_mm, (1.0, 2.0, 3.0), image.geometry.direction)
    write_image(source / f"{CASES[0]}.nii.gz", Image(image.array, moved))
    with pytest.raises(InputError, match=r"^case phantom_000: label and belief .*phantom_000.nii.gz differ: origin_mm"):
        soften(701, "2d", source)
    values = image.array.copy()
    values[0, 0, 0] = np.nan  # ITK reads it as 0
    write_image(source / f"{CASES[0]}.nii.gz", Image(values, image.geometry))
    with pytest.raises(InputError, match=r"^case phantom_000: expected finite values"):
        soften(701, "2d", source)


def test_what_is_not_there(copy_of: Callable[[str], TinyDataset], tmp_path: Path) -> None:
    dataset = copy_of("binary")
    source = write_beliefs(tmp_path / "beliefs", dataset)
    with pytest.raises(InputError, match=r"configuration must be one of 2d, .*2.5d.*, got 3d_lowres"):
        soften(701, "3d_lowres", source)
    with pytest.raises(InputError, match=r"file not found: .*nnOther.json"):
        soften(701, "2d", source, plans_name="nnOther")
    shutil.rmtree(dataset.preprocessed / "nnUNetPlans_2d")
    with pytest.raises(InputError, match="nnUNetPlans_2d: nothing is preprocessed"):
        soften(701, "2d", source)
    with pytest.raises(InputError, match="folder not found"):
        soften(701, "3d_fullres", tmp_path / "nowhere")


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def test_names_of_files(tmp_path: Path) -> None:
    one = touch(tmp_path / "one", "a.nii.gz", "b.1.npy", "c.NPZ", "dataset.json", ".hidden")
    os.rename(one / "c.NPZ", one / "c.npz")
    assert belief_files(one, ["a", "b.1", "c", "d"], ("lesion",)) == {
        "a": {"lesion": one / "a.nii.gz"},
        "b.1": {"lesion": one / "b.1.npy"},
        "c": {"lesion": one / "c.npz"},
    }
    several = touch(tmp_path / "several", "a__rim.mha", "a__core.npy", "b.npz")
    assert belief_files(several, ["a", "b"], ("rim", "core")) == {
        "a": {"rim": several / "a__rim.mha", "core": several / "a__core.npy"},
        "b": {"": several / "b.npz"},
    }


@pytest.mark.parametrize(
    ("names", "classes", "message"),
    [
        (["x.nii.gz"], 1, "x.nii.gz: belongs to no case, expected CASE.nii.gz"),
        (["a.nii.gz", "notes.txt"], 1, "notes.txt: belongs to no case"),
        (["a__rim.nii.gz"], 1, "a__rim.nii.gz: belongs to no case"),
        (["a.nii.gz"], 2, r"a.nii.gz: belongs to no case, expected CASE__NAME.nii.gz \(NAME: rim, core\) or CASE.npz"),
        (["a__skull.nii.gz"], 2, "a__skull.nii.gz: belongs to no case"),
        (["a.nii.gz", "a.npy"], 1, "case a: expected one file for a class, found a.nii.gz and .*a.npy"),
        (["a.npz", "a__rim.npy"], 2, "case a: expected one file for a class, found a.npz and .*a__rim.npy"),
        ([], 1, "expected CASE.nii.gz .*, found no such file"),
        (["a__rim.npz"], 3, "case a: a__rim names its class rim and another case"),
    ],
)
def test_names_that_are_refused(tmp_path: Path, names: list[str], classes: int, message: str) -> None:
    cases = ["a", "b"] if classes < 3 else ["a", "a__rim"]
    with pytest.raises(InputError, match=message):
        belief_files(touch(tmp_path / "f", *names), cases, ("rim", "core")[:classes])


def reading(tmp_path: Path, reader: Any, shape: tuple[int, ...]) -> Any:
    """What reads beliefs for labels in a folder, of images of this shape that one of nnU-Net's readers reads."""
    plans = SimpleNamespace(image_reader_writer_class=reader, transpose_backward=(0, 1, 2))
    work = _Softening(
        scheme=LabelScheme({"lesion": (1,)}, None, False),
        configuration=Configuration("d", plans, None),
        data_folder=tmp_path,
        labels=tmp_path,
        target=tmp_path,
    )
    clean = CleanSegmentation(np.zeros(0), {"shape_before_cropping": shape})
    return lambda path: work._read("a", {"lesion": path}, clean)


def test_beliefs_of_a_2d_image(tmp_path: Path) -> None:
    label = np.zeros((5, 7), np.uint8)
    geometry = Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
    write_image(tmp_path / "a.png", Image(label, geometry))
    belief = np.random.default_rng(0).random((5, 7)).astype(np.float32)
    read = reading(tmp_path, NaturalImage2DIO, (1, 5, 7))
    write_image(tmp_path / "b.nii.gz", Image(belief, geometry))
    np.save(tmp_path / "b.npy", belief)
    np.savez(tmp_path / "b.npz", probabilities=np.stack([1 - belief, belief])[:, None])
    for name in ("b.nii.gz", "b.npy", "b.npz"):
        np.testing.assert_array_equal(read(tmp_path / name), belief[None, None], err_msg=name)
    write_image(tmp_path / "b.png", Image((belief > 0.5).astype(np.uint8), geometry))
    np.testing.assert_array_equal(read(tmp_path / "b.png"), belief[None, None] > 0.5)


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO, NibabelIOWithReorient])
def test_beliefs_have_the_axes_of_the_label_whatever_the_reader(tmp_path: Path, reader: Any) -> None:
    # Array axis z runs along -y of the patient, y along x, x along z.
    geometry = Geometry((3.0, 2.0, 1.0), (4.0, 5.0, 6.0), (0.0, 1.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0))
    label = (np.random.default_rng(0).random((4, 5, 6)) > 0.5).astype(np.uint8)
    write_image(tmp_path / "a.nii.gz", Image(label, geometry))
    write_image(tmp_path / "b.nii.gz", Image(label.astype(np.float32) / 2, geometry))
    expected = reader().read_seg(str(tmp_path / "a.nii.gz"))[0]
    assert (expected.shape[1:] == label.shape) == (reader is not NibabelIOWithReorient)
    read = reading(tmp_path, reader, expected.shape[1:])
    np.testing.assert_array_equal(read(tmp_path / "b.nii.gz"), expected / 2)
