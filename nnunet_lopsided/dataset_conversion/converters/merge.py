"""Datasets that each lack the other's disease, as one dataset.

The second use of the lopsided loss in Yi et al. 2020: in the union, a class that a source did not annotate is missing
from all of its labels, and which class that is goes into not_annotated.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_lopsided.dataset_conversion.converters.options import Converted, Options
from nnunet_lopsided.dataset_conversion.converters.release import LabelMap, Release, SourceCase, Split
from nnunet_lopsided.dataset_conversion.converters.volumes import VolumeFile
from nnunet_lopsided.dataset_conversion.converters.writing import CONVERSION_FILE, fill_dataset
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.files.tables import read_table
from nnunet_lopsided.nnunet.patients import CASES_FILE, patients_of
from nnunet_lopsided.nnunet.raw import Case, RawDataset, new_raw_dataset, raw_dataset

_COLOUR = "colour"  # in place of a channel: the one file that holds several
NOT_ANNOTATED_FILE = "not_annotated.json"


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A dataset with its channels (in lower case, by index) and classes under their names in the union; its cases."""

    dataset: RawDataset
    channels: Mapping[str, int]
    spelling: Mapping[str, str]
    classes: Mapping[str, int]
    training: Sequence[Case]
    test: Sequence[Case]

    @property
    def all_cases(self) -> list[Case]:
        """Training cases first."""
        return [*self.training, *self.test]


def merge(
    datasets: Sequence[int | str],
    options: Options,
    *,
    same_channels: Mapping[str, str] | None = None,
    class_names: Mapping[tuple[str, str], str] | None = None,
    prefix: bool = False,
) -> Converted:
    """Write the union of raw datasets: the channels they share, and all of their classes.

    Classes of one name are one class; the values of the union follow the order in which names first appear, the ignore
    label comes last. Images and labels are linked; labels whose values change are rewritten.

    Args:
        datasets: ids or folder names below nnUNet_raw, at least two.
        options: how to write the union. Test cases of the sources stay test cases.
        same_channels: other names of a channel: ``{"T1post": "t1c"}`` makes T1post and t1c one channel, t1c. Upper and
            lower case are the same anyway.
        class_names: names of classes in the union by (dataset as given, name there).
        prefix: put the dataset's name before the names of its cases and patients: where two sources have a name in
            common that stands for different cases.

    Returns:
        The folder and counts.

    Raises:
        InputError: datasets share no channel, have regions, or a case or patient clashes.
    """
    if len(datasets) < 2:
        raise InputError(f"merge needs at least two datasets, got {len(datasets)}")
    raws = [raw_dataset(d) for d in datasets]
    if len({d.name for d in raws}) < len(raws):
        raise InputError(f"merge needs different datasets, got {', '.join(d.name for d in raws)}")
    # A class may be renamed under the id or the name, whichever the user gave first.
    keys = [{str(given), dataset.name} for given, dataset in zip(datasets, raws, strict=True)]
    renamed = dict(class_names or {})
    unused = [name for name in renamed if not any(name[0] in key for key in keys)]
    if unused:
        raise InputError(f"class {unused[0][1]!r} is renamed in {unused[0][0]}, which is not merged")
    sources = [
        _source(d, {old: new for (of, old), new in renamed.items() if of in key}, same_channels or {})
        for d, key in zip(raws, keys, strict=True)
    ]
    channels = [c for c in sources[0].channels if all(c in s.channels for s in sources)]
    if not channels:
        has = "; ".join(f"{s.dataset.name} has {', '.join(s.channels)}" for s in sources)
        raise InputError(f"the datasets share no channel: {has}")
    labels, spelling = _union_of_classes(sources), sources[0].spelling
    names = {channel: spelling[channel] for channel in channels}
    colour = _are_colour_images(sources, channels)
    cases = [case for source in sources for case in _cases(source, names, labels, prefix=prefix, colour=colour)]
    _check_different_names(cases, options)
    release = Release(
        channels=(_COLOUR,) if colour else tuple(names.values()),
        cases=tuple(cases),
        labels=labels,
        notes=tuple(_dropped(sources, channels)),
        file_channels=tuple(names.values()) if colour else (),
    )
    own = {
        "same": dict(same_channels or {}),
        "classes": {f"{of}:{old}": new for (of, old), new in renamed.items()},
        "prefix": prefix,
    }
    settings = {"converter": "merge", "source": [s.dataset.name for s in sources], "options": own}
    with new_raw_dataset(options.dataset_id, options.name, CONVERSION_FILE, options.overwrite) as folder:
        converted = fill_dataset(folder, release, options, settings)
        write_json(folder / NOT_ANNOTATED_FILE, _not_annotated(sources, labels, folder))
    return converted


def _source(dataset: RawDataset, renamed: Mapping[str, str], same: Mapping[str, str]) -> _Source:
    if dataset.has_regions:
        raise InputError(f"{dataset.name}: expected plain labels, found regions, which cannot be merged")
    unknown = sorted(set(renamed) - set(dataset.foreground_labels))
    if unknown:
        has = ", ".join(dataset.foreground_labels)
        raise InputError(f"{dataset.name}: no class {unknown[0]!r} to rename, it has {has}")
    aliases = {old.lower(): new for old, new in same.items()}
    channels: dict[str, int] = {}
    spelling: dict[str, str] = {}
    for index, name in enumerate(dataset.channel_names):
        channel = aliases.get(name.lower(), name)
        if channel.lower() in channels:
            raise InputError(f"{dataset.name}: channels {channels[channel.lower()]} and {index} are both {channel}")
        # Releases differ in upper and lower case for the same sequence.
        channels[channel.lower()], spelling[channel.lower()] = index, channel
    classes = {renamed.get(name, name): values[0] for name, values in dataset.foreground_labels.items()}
    if len(classes) < len(dataset.foreground_labels):
        raise InputError(f"{dataset.name}: two classes would both be named {', '.join(classes)}")
    return _Source(
        dataset=dataset,
        channels=channels,
        spelling=spelling,
        classes=classes,
        training=dataset.training_cases(),
        test=dataset.test_cases(),
    )


def _union_of_classes(sources: Sequence[_Source]) -> dict[str, int]:
    names = dict.fromkeys(name for source in sources for name in source.classes)
    labels = {"background": 0, **{name: value for value, name in enumerate(names, 1)}}
    if any(source.dataset.ignore_label is not None for source in sources):
        # nnU-Net wants it to be the highest, and all values without a gap.
        labels["ignore"] = len(labels)
    return labels


def _check_different_names(cases: Sequence[SourceCase], options: Options) -> None:
    sources: dict[str, str] = {}
    for case in cases:
        other = sources.setdefault(case.name, case.source)
        # A name twice within one source is found when its cases are checked.
        if other != case.source and case.name not in options.exclude:
            raise InputError(
                f"case {case.name}: is in {other} and in {case.source}; --prefix puts the dataset's name before both"
            )


def _are_colour_images(sources: Sequence[_Source], channels: Sequence[str]) -> bool:
    """Whether the sources hold colour images: one file with several channels, which stays one file.

    Raises:
        InputError: some hold colour images and others do not, or their channels are not the same in the same order.
    """
    in_one_file = {
        source.dataset.name: len(source.channels) > 1 and any(len(case.images) == 1 for case in source.all_cases)
        for source in sources
    }
    if not any(in_one_file.values()):
        return False
    for source in sources:
        files = {len(case.images) for case in source.all_cases}
        if files != {1} or list(source.channels) != list(channels):
            raise InputError(
                f"{source.dataset.name}: colour images are merged with colour images of the same channels alone, "
                f"expected one image per case with {', '.join(channels)}, found {', '.join(source.channels)} in "
                f"{' or '.join(map(str, sorted(files)))} images"
            )
    return True


def _cases(
    source: _Source, channels: Mapping[str, str], labels: Mapping[str, int], *, prefix: bool, colour: bool
) -> list[SourceCase]:
    values = {value: labels[name] for name, value in source.classes.items()}
    if source.dataset.ignore_label is not None:
        values[source.dataset.ignore_label] = labels["ignore"]
    dataset = source.dataset
    patients, _ = patients_of([c.name for c in source.all_cases], dataset.folder)
    time_points = _time_points(dataset)
    # Before the patients too: patient 001 of two hospitals is two people.
    before = f"{dataset.name}_" if prefix else ""

    def case(c: Case, split: Split) -> SourceCase:
        places = {_COLOUR: 0} if colour else {name: source.channels[key] for key, name in channels.items()}
        images = {name: VolumeFile(c.images[place], colour) for name, place in places.items()}
        label = None if c.label is None else VolumeFile(c.label)
        time_point = time_points.get(c.name, "")
        name, patient = (f"{before}{n}" for n in (c.name, patients[c.name]))
        return SourceCase(
            name=name,
            patient=patient,
            source=dataset.name,
            images=images,
            label=label,
            label_map=LabelMap(values),
            time_point=time_point,
            split=split,
        )

    return [case(c, "train") for c in source.training] + [case(c, "test") for c in source.test]


def _time_points(dataset: RawDataset) -> dict[str, str]:
    if not (dataset.folder / CASES_FILE).is_file():
        return {}
    return {row["case"]: row.get("time_point", "") for row in read_table(dataset.folder / CASES_FILE, ("case",))}


def _dropped(sources: Sequence[_Source], channels: Sequence[str]) -> list[str]:
    return [
        f"{source.dataset.name}: not all have channel {', '.join(dropped)}, which is left out"
        for source in sources
        if (dropped := [source.spelling[channel] for channel in source.channels if channel not in channels])
    ]


def _not_annotated(sources: Sequence[_Source], labels: Mapping[str, int], folder: Path) -> dict[str, object]:
    rows = read_table(folder / CASES_FILE)
    classes = [name for name in labels if name not in ("background", "ignore")]
    return {
        "meaning": "in the cases of a source, background may hold lesions of the classes it has not annotated",
        "labels": {name: labels[name] for name in classes},
        "sources": {
            source.dataset.name: {
                "annotated": [name for name in classes if name in source.classes],
                "not_annotated": [name for name in classes if name not in source.classes],
                "cases": [row["case"] for row in rows if row["source"] == source.dataset.name],
            }
            for source in sources
        },
    }
