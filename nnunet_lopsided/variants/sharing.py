"""The preprocessed folder of a variant, made from its source's: only what labels change is written anew."""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided import __version__
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.nnunet.configurations import Configuration, data_configurations
from nnunet_lopsided.nnunet.dataset_json import read_dataset_json
from nnunet_lopsided.nnunet.image_reader import ImageReader
from nnunet_lopsided.nnunet.label_preprocessing import LabelPreprocessing
from nnunet_lopsided.nnunet.label_values import check_label_values
from nnunet_lopsided.nnunet.paths import nnunet_path
from nnunet_lopsided.nnunet.patients import patients_of
from nnunet_lopsided.nnunet.plans import plans_in
from nnunet_lopsided.nnunet.preprocessed import new_preprocessed_dataset, preprocessed_folder
from nnunet_lopsided.nnunet.preprocessed_case import read_clean, write_segmentation
from nnunet_lopsided.nnunet.raw import Case, RawDataset, raw_dataset, read_by_nnunet
from nnunet_lopsided.nnunet.splitting import folds_of_part, read_splits

SHARING_FILE = "sharing.json"
# Where a link cannot be made and a copy can; a full disk (ENOSPC) would fail for both.
# Another file system, a file of another user, too many links, a file system without links.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True, kw_only=True)
class SharedDataset:
    """What :func:`share_preprocessed` made.

    Attributes:
        folder: the variant's preprocessed folder.
        configurations: its folders of preprocessed data.
        n_cases: training cases.
        n_linked: files that are hard links to the source's.
        n_copied: files that could not be linked and were copied.
        preprocessed_anew: cases whose images nnU-Net normalises differently with the variant's labels.
        notes: what else the user must know.
    """

    folder: Path
    configurations: tuple[str, ...]
    n_cases: int
    n_linked: int
    n_copied: int
    preprocessed_anew: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _CaseResult:
    name: str
    n_linked: int
    n_copied: int
    anew: bool


def share_preprocessed(
    source: int | str, variant: int | str, *, overwrite: bool = False, n_workers: int = 2
) -> SharedDataset:
    """Make the preprocessed folder of a variant from that of its source.

    The result is what nnUNetv2_preprocess makes of the variant with the source's plans: image files are hard links (or
    copies, where links are impossible), ``_seg`` and ``class_locations`` are those of the variant's labels. The
    folder appears only when complete. The source is not changed.

    Args:
        source: id or name of a dataset that nnU-Net has planned and preprocessed.
        variant: id or name of a dataset below nnUNet_raw with the same images; it may have fewer training cases.
        overwrite: replace what this function made before.
        n_workers: how many cases are worked on at the same time.

    Raises:
        InputError: the source is not preprocessed or was by an older nnU-Net, the variant has other cases or images, a
            label cannot be read or holds unknown values, or the variant's folder exists.
    """
    clean_folder, clean, dataset = preprocessed_folder(source), raw_dataset(source), raw_dataset(variant)
    _check_names(source, clean_folder, clean, dataset)
    plans = plans_in(clean_folder)
    if not plans:
        raise InputError(f"{clean_folder}: no plans found; run nnUNetv2_plan_and_preprocess first")
    # Against the copy in the preprocessed folder, which says what was preprocessed; the raw one may have changed since.
    _check_same_kind(read_dataset_json(clean_folder / "dataset.json"), dataset)
    configurations = {
        name: configuration
        for name, configuration in data_configurations(list(plans.values())).items()
        if (clean_folder / name).is_dir()
    }
    if not configurations:
        raise InputError(f"{clean_folder}: nothing is preprocessed; run nnUNetv2_preprocess first")
    cases, clean_cases = dataset.training_cases(), {case.name: case for case in clean.training_cases()}
    for case in cases:
        if case.name not in clean_cases:
            raise InputError(f"{dataset.name}, case {case.name}: is no training case of {clean.name}")

    with new_preprocessed_dataset(dataset.name, SHARING_FILE, overwrite) as folder:
        sharing = _Sharing(dataset, clean_folder, folder, configurations)
        # nnU-Net validates against gt_segmentations, which are the label maps before preprocessing.
        for name in (*configurations, "gt_segmentations"):
            (folder / name).mkdir()
        results = for_each(lambda case: sharing.share(case, clean_cases[case.name]), cases, n_workers, "sharing")
        for name, content in plans.items():
            # By this name nnU-Net's trainer finds the data and names the results: with the source's it would train on
            # those.
            write_json(folder / name, {**content, "dataset_name": dataset.name})
        note = _write_dataset_files(dataset, clean_folder, clean_cases.keys(), folder)
        shared = SharedDataset(
            folder=nnunet_path("nnUNet_preprocessed") / dataset.name,
            configurations=tuple(configurations),
            n_cases=len(cases),
            n_linked=sum(result.n_linked for result in results),
            n_copied=sum(result.n_copied for result in results),
            preprocessed_anew=tuple(result.name for result in results if result.anew),
            notes=(note,) if note else (),
        )
        write_json(folder / SHARING_FILE, _record(shared, clean.name))
    return shared


def _check_names(source: int | str, clean_folder: Path, clean: RawDataset, dataset: RawDataset) -> None:
    if clean.name != clean_folder.name:
        raise InputError(
            f"dataset {source}: expected one dataset of this id, found {clean.folder} and {clean_folder}; nnU-Net "
            "refuses that too: give one of them another id"
        )
    if clean.name == dataset.name:
        raise InputError(f"{clean.name} is source and variant")


def _record(shared: SharedDataset, source: str) -> dict[str, object]:
    return {
        "tool": "nnunet-lopsided",
        "version": __version__,
        "source_dataset": source,
        "configurations": list(shared.configurations),
        "n_cases": shared.n_cases,
        "n_files_linked": shared.n_linked,
        "n_files_copied": shared.n_copied,
        "cases_preprocessed_anew": list(shared.preprocessed_anew),
        "notes": list(shared.notes),
    }


@dataclass(frozen=True)
class _Sharing:
    dataset: RawDataset
    clean_folder: Path
    folder: Path
    configurations: dict[str, Configuration]

    def share(self, case: Case, clean_case: Case) -> _CaseResult:
        assert case.label is not None, "training_cases() gives labels"
        _check_same_images(case, clean_case)
        label = Path(case.label)
        shutil.copyfile(label, self.folder / "gt_segmentations" / (case.name + self.dataset.file_ending))
        n_linked = n_copied = 0
        anew = False
        # Several plans may name several readers, which may turn the axes differently; a label map is read once by each.
        by_reader: dict[Callable[[], ImageReader], dict[str, Configuration]] = {}
        for name, configuration in self.configurations.items():
            by_reader.setdefault(configuration.plans.image_reader_writer_class, {})[name] = configuration
        for reader, configurations in by_reader.items():
            clean = {name: read_clean(self.clean_folder / name, case.name) for name in configurations}
            preprocessing = LabelPreprocessing(
                case.name,
                self._read_label(case.name, label, reader),
                [cache(partial(self._read, case.name, [image], reader().read_images)) for image in case.images],
                partial(self._read_label, case.name, self._clean_label(clean_case), reader),
            )
            preprocessing.crop(configurations, clean)
            for name, configuration in configurations.items():
                if preprocessing.changes_normalisation(configuration):
                    # Its images differ from the source's, so there is nothing to link; nnU-Net does the whole case.
                    self._preprocess(case, configuration)
                    anew = True
                    continue
                copied = link_or_copy(*self._pair(name, f"{case.name}.b2nd"))
                n_linked, n_copied = n_linked + (not copied), n_copied + copied
                new = preprocessing.finish(configuration, clean[name], self.dataset.json)
                write_segmentation(self.folder / name, case.name, new, like=self.clean_folder / name)
        return _CaseResult(case.name, n_linked, n_copied, anew)

    def _pair(self, configuration: str, file: str) -> tuple[Path, Path]:
        return self.clean_folder / configuration / file, self.folder / configuration / file

    def _preprocess(self, case: Case, configuration: Configuration) -> None:
        configuration.manager.preprocessor_class(verbose=False).run_case_save(
            str(self.folder / configuration.folder / case.name),
            [str(image) for image in case.images],
            str(case.label),
            configuration.plans,
            configuration.manager,
            self.dataset.json,
        )

    def _clean_label(self, clean_case: Case) -> Path:
        assert clean_case.label is not None, "training_cases() gives labels"
        # Copied when the source was preprocessed, so it is what went into its files even if labelsTr was edited since.
        preprocessed = self.clean_folder / "gt_segmentations" / (clean_case.name + self.dataset.file_ending)
        return preprocessed if preprocessed.is_file() else clean_case.label

    def _read_label(self, name: str, label: Path, reader: Callable[[], ImageReader]) -> NDArray[np.generic]:
        array = self._read(name, [label], lambda files: reader().read_seg(files[0]))
        check_label_values(self.dataset.label_scheme, name, label, array)
        return array

    def _read(
        self, name: str, files: Sequence[Path], read: Callable[[list[str]], tuple[NDArray[np.generic], object]]
    ) -> NDArray[np.generic]:
        return read_by_nnunet(f"{self.dataset.name}, case {name}", files, read)


def link_or_copy(source: Path, target: Path) -> bool:
    """Make ``target`` a hard link to a file, or a copy where that is impossible; returns whether it was copied."""
    # os.link() may link the symbolic link itself, which breaks when its target is moved.
    real = source.resolve()
    try:
        os.link(real, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copyfile(real, target)
        return True
    return False


def _check_same_kind(clean: Mapping[str, object], dataset: RawDataset) -> None:
    # What decides how images are read and normalised. Labels may differ: a variant can have an ignore label in
    # addition.
    for key in ("file_ending", "channel_names", "modality", "overwrite_image_reader_writer"):
        if clean.get(key) != dataset.json.get(key):
            raise InputError(
                f"{dataset.folder / 'dataset.json'}: expected {key} to be {clean.get(key)!r}, as it was preprocessed, "
                f"found {dataset.json.get(key)!r}"
            )


def _check_same_images(case: Case, clean_case: Case) -> None:
    if len(case.images) != len(clean_case.images):
        raise InputError(
            f"case {case.name}: expected the source's {len(clean_case.images)} images, found {len(case.images)}"
        )
    for image, clean_image in zip(case.images, clean_case.images, strict=True):
        # A variant of ours refers to the source's files, so that only other folders cost a comparison of all bytes.
        if not image.samefile(clean_image) and not filecmp.cmp(image, clean_image, shallow=False):
            raise InputError(f"case {case.name}: expected {image} to equal the source's {clean_image}, but it differs")


def _write_dataset_files(dataset: RawDataset, clean_folder: Path, clean_names: Collection[str], folder: Path) -> str:
    """Write the files that a dataset has once: dataset.json, fingerprint, splits; returns a note on the splits."""
    shutil.copyfile(dataset.folder / "dataset.json", folder / "dataset.json")
    fingerprint = clean_folder / "dataset_fingerprint.json"
    if fingerprint.is_file():
        shutil.copyfile(fingerprint, folder / fingerprint.name)
    names = [case.name for case in dataset.training_cases()]
    patients, _ = patients_of(names, dataset.folder)
    by_source = [(clean_folder / "splits_final.json", clean_names), (dataset.folder / "splits_final.json", names)]
    candidates = [
        # The source's first: its folds are those of the trainings that the variant's will be compared with.
        folds_of_part(read_splits(file, known), patients, {}, seed=0)
        for file, known in by_source
        if file.is_file()
    ]
    # The variant's own, where the source's are of no use for its cases.
    unchanged = [(folds, note) for folds, note in candidates if not note]
    folds, note = (unchanged or candidates or [([], "")])[0]
    if folds:
        write_json(folder / "splits_final.json", folds)
    return note
