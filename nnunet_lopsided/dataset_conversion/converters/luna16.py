"""LUNA16: CT scans without masks; the masks come from the contours of LIDC's four readers.

The dataset holds what a chosen number of readers agree on. A reader variant of it holds, for training, what one reader
outlined: what a study with a single annotator would have had, real omissions included.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnunet_lopsided.dataset_conversion.converters.case_files import write_checked
from nnunet_lopsided.dataset_conversion.converters.ct import Clipped
from nnunet_lopsided.dataset_conversion.converters.lidc import (
    N_READERS,
    Nodule,
    Reading,
    agreed_mask,
    encloses_nothing,
    read_reading,
    reader_masks,
    slice_index,
)
from nnunet_lopsided.dataset_conversion.converters.options import Converted, Options
from nnunet_lopsided.dataset_conversion.converters.release import (
    BINARY,
    Gatherer,
    Release,
    SourceCase,
    Split,
    files_below,
    selected_channels,
)
from nnunet_lopsided.dataset_conversion.converters.volumes import Volume, VolumeFile
from nnunet_lopsided.dataset_conversion.converters.writing import CONVERSION_FILE, fill_dataset
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import read_json, write_json
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.files.tables import read_table, write_table
from nnunet_lopsided.images import Header, Image, read_image
from nnunet_lopsided.lesions import Lesions, find_lesions
from nnunet_lopsided.nnunet.paths import new_dataset_name, nnunet_path
from nnunet_lopsided.nnunet.patients import CASES_FILE
from nnunet_lopsided.nnunet.raw import RawDataset, link_file, new_raw_dataset, reference
from nnunet_lopsided.nnunet.splitting import folds_of_part, read_splits

CHANNELS = ("CT",)
# Folders of the split of Shirokikh et al. 2020.
PAPER_TRAINING, PAPER_VALIDATION, PAPER_TEST = range(6), range(6, 8), range(8, 10)
PAPER_HU = (-1000, 300)
READERS_FILE = "readers.csv"
SLOT_NOTE = "a reader slot is the place in the XML file: LIDC does not say which slots of two scans are one person"


@dataclass(frozen=True)
class ConsensusMask:
    """The label map of a scan, drawn from its XML file when it is read."""

    path: Path
    ct: VolumeFile
    slots: tuple[tuple[Nodule, ...], ...]
    n_readers: int

    def header(self) -> Header:
        return self.ct.header()

    def read(self) -> Image:
        header = self.header()
        if not self.n_readers <= len(self.slots) <= N_READERS:
            expected = f"{self.n_readers} to {N_READERS} reading sessions"
            raise InputError(f"{self.path}: expected {expected}, found {len(self.slots)}")
        try:
            return Image(agreed_mask(reader_masks(self.slots, header), self.n_readers), header.geometry)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from None


@dataclass(frozen=True)
class Luna16Release(Release):
    """A release whose readers may become variants.

    Attributes:
        readings: by case.
        reader_variants: whether they are wanted.
    """

    readings: Mapping[str, Reading] = field(default_factory=dict)
    reader_variants: bool = False


def find(
    source: Path,
    channels: Iterable[str] | None = None,
    consensus: int = 3,
    split: str = "paper",
    lidc_xml: Path | None = None,
    paper_images: bool = False,
    reader_variants: bool = False,
    n_workers: int = 2,
) -> Luna16Release:
    """The scans of ``subset0`` to ``subset9`` below ``source``; their names are the series.

    Args:
        source: any folder above the subsets and, unless ``lidc_xml`` is given, the XML files.
        channels: only CT.
        consensus: how many readers must agree, 1 to 4; 3 is the rule of LUNA16's own reference.
        split: ``paper``: subsets 0 to 5 train and 6 and 7 validate in the only fold, 8 and 9 are test cases; ``all``:
            every scan is a training case, in five folds.
        lidc_xml: any folder above the XML files.
        paper_images: clip to -1000 to 300 HU, and set what is outside the masks of seg-lungs-LUNA16 to -1000.
        reader_variants: write a variant per reader slot as well.
        n_workers: XML files read at the same time.

    Raises:
        InputError: a folder does not exist, or an argument is not allowed.
    """
    chosen = selected_channels(channels, CHANNELS, CHANNELS)
    if not 1 <= consensus <= N_READERS:
        raise InputError(f"consensus must be within 1 to {N_READERS}, got {consensus}")
    gathered, subsets, lungs = _scans(source)
    # LIDC has more than a thousand XML files: without a single scan there is no reason to read them.
    readings = _readings(lidc_xml or source, set(subsets), gathered.problems, n_workers) if subsets else {}
    cases = []
    for series, files in sorted(gathered.files.items()):
        ct, reading = VolumeFile(files["CT"]), readings.get(series)
        label = None if reading is None else ConsensusMask(reading.path, ct, reading.slots, consensus)
        gathered.notes += [] if reading is None else _empty_nodules(reading)
        is_test = split == "paper" and subsets[series] in PAPER_TEST
        if is_test and reading is None:
            gathered.problems.append((series, f"no XML file of its series below {lidc_xml or source}"))
        if paper_images and series not in lungs:
            gathered.problems.append((series, f"no lung mask in seg-lungs-LUNA16 below {source}"))
        image: Volume = Clipped(ct, *PAPER_HU, lungs.get(series)) if paper_images else ct
        side: Split = "test" if is_test else "train"
        folder = gathered.folder_of(series, "CT")
        cases.append(
            SourceCase(
                name=series,
                patient=series,
                source=folder,
                images={"CT": image},
                label=label,
                label_map=BINARY,
                split=side,
            )
        )
    training = [case.name for case in cases if case.split == "train"]
    fold = {
        "train": [name for name in training if subsets[name] in PAPER_TRAINING],
        "val": [name for name in training if subsets[name] in PAPER_VALIDATION],
    }
    return Luna16Release(
        channels=chosen,
        cases=tuple(cases),
        problems=tuple(gathered.problems),
        notes=tuple(gathered.notes),
        folds=(fold,) if split == "paper" else None,
        readings=readings,
        reader_variants=reader_variants,
    )


def _scans(source: Path) -> tuple[Gatherer, dict[str, int], dict[str, VolumeFile]]:
    """The scans, the number of the subset of each, and the lung masks, by series."""
    gathered, subsets, lungs = Gatherer(source=source), {}, {}
    for path in files_below(source):
        match = re.fullmatch(r"subset(\d)", path.parent.name, re.IGNORECASE)
        if path.parent.name == "seg-lungs-LUNA16" and path.suffix.lower() == ".mhd":
            lungs[path.stem] = VolumeFile(path)
        if match and path.suffix.lower() == ".mhd":
            subsets[path.stem] = int(match[1])
            gathered.add(path.stem, "CT", path)
    return gathered, subsets, lungs


def _empty_nodules(reading: Reading) -> list[str]:
    """Notes on nodules whose outlines are too small to enclose a voxel."""
    notes = []
    for slot, nodules in enumerate(reading.slots, 1):
        empty = [nodule.name for nodule in nodules if encloses_nothing(nodule)]
        if empty:
            notes.append(f"{reading.series}: nothing is enclosed by nodule {', '.join(empty)} of reader {slot}")
    return notes


def _readings(folder: Path, wanted: set[str], problems: list[tuple[str, str]], n_workers: int) -> dict[str, Reading]:
    """The reading of every wanted series; files that differ on one series are a problem."""
    files = [path for path in files_below(folder) if path.suffix.lower() == ".xml"]

    def read(path: Path) -> Reading | InputError | None:
        try:
            return read_reading(path)
        except InputError as error:
            return error

    results = for_each(read, files, n_workers, "XML files")
    unreadable = [str(result) for result in results if isinstance(result, InputError)]
    if unreadable:
        raise InputError("; ".join(unreadable))
    readings: dict[str, Reading] = {}
    for reading in results:
        if not isinstance(reading, Reading) or reading.series not in wanted:
            continue
        # A download may hold an XML file twice; only copies that differ are a problem.
        other = readings.setdefault(reading.series, reading)
        if other.slots != reading.slots:
            problems.append((reading.series, f"{other.path} and {reading.path} differ"))
    return readings


class _ReadLesion(NamedTuple):
    """A lesion of the consensus: a row of readers.csv."""

    case: str
    id: int
    volume_mm3: str
    diameter_mm: str
    marks: tuple[str, ...]  # of each reader, see _mark


def write(release: Luna16Release, options: Options, settings: Mapping[str, object]) -> Converted:
    """Write the dataset, and its reader variants under the ids that follow.

    The variants of id N are N + 1 to N + 4. They get their final names just before the dataset itself does, so a killed
    run has not made the dataset; its left-over variants are replaced by the next run.
    """
    final = nnunet_path("nnUNet_raw") / new_dataset_name(options.dataset_id, options.name)
    n_variants = N_READERS if release.reader_variants else 0
    # Left in the reverse order of entering: the dataset, entered first, gets its name last.
    with ExitStack() as stack:
        folder = stack.enter_context(
            new_raw_dataset(options.dataset_id, options.name, CONVERSION_FILE, options.overwrite)
        )
        variants = []
        for slot in range(1, n_variants + 1):
            name = f"{options.name}Reader{slot}"
            overwrite = options.overwrite or _is_left_over(options.dataset_id + slot, name, final)
            variants.append(
                stack.enter_context(new_raw_dataset(options.dataset_id + slot, name, CONVERSION_FILE, overwrite))
            )
        converted = fill_dataset(folder, release, options, settings)
        notes = list(converted.notes)
        if variants:
            notes += [SLOT_NOTE, *_write_variants(release, options, folder=folder, final=final, variants=variants)]
    return replace(converted, notes=tuple(notes))


def _is_left_over(variant_id: int, name: str, final: Path) -> bool:
    """Whether a variant was made by a run that was killed before the dataset ``final``, which is new, got its name."""
    path = final.parent / new_dataset_name(variant_id, name) / CONVERSION_FILE
    content = read_json(path) if path.is_file() else None
    return isinstance(content, dict) and content.get("reader_of") == final.name


def _write_variants(
    release: Luna16Release, options: Options, *, folder: Path, final: Path, variants: list[Path]
) -> list[str]:
    """Fill the variants' folders and list, in the dataset, which reader marked which lesion; returns notes."""
    dataset = RawDataset(folder)
    training = [case.name for case in dataset.training_cases()]
    for variant in variants:
        (variant / "labelsTr").mkdir()

    def work(name: str) -> list[_ReadLesion]:
        return _write_readings(name, release.readings[name], folder=folder, variants=variants)

    read_lesions = [lesion for of_case in for_each(work, training, options.n_workers, "readers") for lesion in of_case]
    write_table(
        folder / READERS_FILE,
        ["case", "id", "volume_mm3", "diameter_mm", *(f"reader{slot}" for slot in range(1, N_READERS + 1))],
        ([*lesion[:-1], *lesion.marks] for lesion in read_lesions),
    )
    notes = []
    for slot, variant in enumerate(variants):
        own_final = final.parent / new_dataset_name(options.dataset_id + slot + 1, f"{options.name}Reader{slot + 1}")
        read = [name for name in training if len(release.readings[name].slots) > slot]
        if len(read) < len(training):
            notes.append(
                f"{own_final.name} lacks {len(training) - len(read)} cases that have no reading session {slot + 1}"
            )
        # A lesion that this reader only pointed at has no voxels in the variant: it is missing there, too.
        statuses = {
            lesion: "kept" if lesion.marks[slot] == "outlined" else "censored"
            for lesion in read_lesions
            if lesion.case in set(read)
        }
        note = _finish_variant(
            variant, dataset, own_final=own_final, final=final, training=read, statuses=statuses, slot=slot + 1
        )
        if note:
            notes.append(f"{own_final.name}: {note}")
    return notes


def _write_readings(name: str, reading: Reading, *, folder: Path, variants: Sequence[Path]) -> list[_ReadLesion]:
    """Write what each reader outlined in a scan; returns what each made of the lesions of the consensus."""
    reference_label = read_image(folder / "labelsTr" / f"{name}.nii.gz")
    header = Header(reference_label.array.shape, reference_label.geometry)
    lesions = find_lesions(reference_label.array, header.geometry.spacing_mm)
    slots = reading.slots
    masks = reader_masks(slots, header)
    # A scan may have fewer reading sessions than there are variants.
    for mask, variant in zip(masks, variants, strict=False):
        label = Image(mask.astype(np.uint8), header.geometry)
        write_checked(variant / "labelsTr" / f"{name}.nii.gz", label)
    # Any shared voxel counts: readers who saw the same nodule rarely draw the same border.
    outlined = [set(lesions.voxel_ids[mask.reshape(-1)[lesions.voxels]].tolist()) for mask in masks]
    pointed = [_pointed_at(nodules, lesions, header) for nodules in slots]
    return [
        _ReadLesion(
            case=name,
            id=i + 1,
            volume_mm3=f"{lesions.volume_mm3[i]:.9g}",
            diameter_mm=f"{lesions.diameter_mm[i]:.9g}",
            marks=tuple(_mark(i + 1, slot, outlined, pointed) for slot in range(N_READERS)),
        )
        for i in range(len(lesions))
    ]


def _pointed_at(nodules: Iterable[Nodule], lesions: Lesions, header: Header) -> set[int]:
    """The lesions in which a reader put a single point: seen, and judged to be below 3 mm."""
    ids = lesions.instances()
    ids_hit = set()
    for contour in (c for nodule in nodules if nodule.is_point for c in nodule.contours):
        try:
            z = slice_index(contour.z_mm, header)
        except InputError:
            continue  # a point between the slices is in no lesion
        ids_hit |= {int(ids[z, y, x]) for x, y in contour.points if 0 <= y < ids.shape[1] and 0 <= x < ids.shape[2]}
    return ids_hit - {0}


def _mark(lesion: int, slot: int, outlined: list[set[int]], pointed: list[set[int]]) -> str:
    if slot >= len(outlined):
        return "not read"
    return "outlined" if lesion in outlined[slot] else "point" if lesion in pointed[slot] else "missed"


def _finish_variant(
    folder: Path,
    dataset: RawDataset,
    *,
    own_final: Path,
    final: Path,
    training: list[str],
    statuses: Mapping[_ReadLesion, str],
    slot: int,
) -> str:
    """Everything of a variant but its labels: lists, links to the test set, dataset.json; returns a note or nothing."""
    # The variant's folder has no imagesTr: nnU-Net finds its images by the paths in `dataset`.
    content = dict(dataset.json)
    content["numTraining"] = len(training)
    content["dataset"] = {
        name: {
            "images": [reference(final / "imagesTr" / f"{name}_0000.nii.gz", own_final)],
            "label": f"labelsTr/{name}.nii.gz",
        }
        for name in training
    }
    write_json(folder / "dataset.json", content)
    for path in dataset.test_files():
        (folder / path).parent.mkdir(exist_ok=True)
        # To where the dataset will lie: it has its name only after all of its variants.
        link_file(folder / path, final / path, own_final, follow=False)
    base, note = read_json(dataset.folder / CONVERSION_FILE), ""
    n_test = _copy_case_list(dataset.folder, folder, set(training))
    splits = dataset.folder / "splits_final.json"
    if splits.is_file():
        lesions = Counter(lesion.case for lesion in statuses)  # a scan is a patient
        folds, note = folds_of_part(read_splits(splits), {name: name for name in training}, lesions, base["seed"])
        if folds:
            write_json(folder / splits.name, folds)
    write_table(
        folder / "censored_lesions.csv",
        ["case", "id", "volume_mm3", "diameter_mm", "status"],
        ([*lesion[:-1], status] for lesion, status in statuses.items()),
    )
    n_missed = list(statuses.values()).count("censored")
    own = {"n_train": len(training), "n_test": n_test, "notes": [*base["notes"], *([note] if note else [])]}
    reader = {"reader_of": final.name, "reader_slot": slot, "n_lesions": len(statuses), "n_missed": n_missed}
    write_json(folder / CONVERSION_FILE, {**base, **own, **reader})
    return note


def _copy_case_list(source: Path, folder: Path, training: set[str]) -> int:
    """cases.csv without the training cases a variant lacks; returns the number of test cases."""
    table = read_table(source / CASES_FILE, ("case", "split"))
    rows = [row for row in table if row["split"] == "test" or row["case"] in training]
    write_table(folder / CASES_FILE, list(table[0]), [row.values() for row in rows])
    return sum(row["split"] == "test" for row in rows)
