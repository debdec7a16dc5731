"""What dataset.json declares: label values, regions, channels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

# Python's own is not enough for pydantic before Python 3.12.
from typing_extensions import TypedDict

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import read_json
from nnunet_lopsided.files.schema import validated

_LARGEST_VALUE = 2**15 - 1  # of a label: nnU-Net stores 16 bits


class _ListedCase(TypedDict):
    """The files of a case that ``dataset`` in dataset.json lists."""

    images: list[str]
    label: str


class DatasetJson(TypedDict, total=False):
    """What this package uses of dataset.json; :func:`label_scheme` and :func:`channel_names` look at their own."""

    labels: dict[str, object]
    file_ending: str
    regions_class_order: list[int] | None
    overwrite_image_reader_writer: str | None
    dataset: dict[str, _ListedCase] | None


_MODEL = TypeAdapter(DatasetJson)


def read_dataset_json(path: Path) -> DatasetJson:
    """The content of a dataset.json.

    Raises:
        InputError: the file is missing, is not JSON, or one of the values that this package uses is of another type.
    """
    content: DatasetJson = read_json(path)
    # As it was read, not what pydantic returns: that lacks the keys of others, which a variant's dataset.json keeps.
    validated(_MODEL, content, path)
    return content


@dataclass(frozen=True)
class LabelScheme:
    """The classes of a dataset and the channels in which nnU-Net predicts them.

    Attributes:
        foreground: label values of every foreground class or region by name, in the order of dataset.json.
        ignore: the value that marks voxels without annotation, or None.
        has_regions: whether any class is a region (a set of label values). Then every foreground class has one sigmoid
            channel, in the order of ``foreground``, and background has none; otherwise there is one softmax channel
            per label value, background first.
    """

    foreground: dict[str, tuple[int, ...]]
    ignore: int | None
    has_regions: bool

    @property
    def label_values(self) -> tuple[int, ...]:
        """Every label value, background included and ignore left out, ascending."""
        return tuple(sorted({0}.union(*self.foreground.values())))

    @property
    def declared_values(self) -> tuple[int, ...]:
        """Every value a label map may hold, background and ignore included, ascending."""
        return self.label_values if self.ignore is None else tuple(sorted({*self.label_values, self.ignore}))

    @property
    def n_channels(self) -> int:
        """Channels of the network's output."""
        return len(self.foreground) if self.has_regions else len(self.label_values)

    def channels_of(self, name: str) -> tuple[int, ...]:
        """Channels of the class ``name``: one for a region, else the softmax channels whose sum is its probability.

        Source: ``LabelManager`` of nnU-Net 2.8.1: regions keep dataset.json's order without background; softmax
        channels follow the sorted label values, so that channel and value are the same when values are consecutive.

        Example:
            >>> regions = LabelScheme({"whole": (1, 2), "core": (2,)}, None, has_regions=True)
            >>> regions.channels_of("core"), regions.n_channels
            ((1,), 2)
            >>> LabelScheme({"a": (1,), "b": (2,)}, None, has_regions=False).channels_of("b")
            (2,)
        """
        if self.has_regions:
            return (list(self.foreground).index(name),)
        return tuple(self.label_values.index(value) for value in self.foreground[name])


def label_scheme(dataset_json: Mapping[str, object], source: Path) -> LabelScheme:
    """The classes that dataset.json declares.

    Args:
        dataset_json: its content.
        source: where it was read from, for error messages.

    Raises:
        InputError: there is no ``labels`` mapping from names to label values (nnU-Net v1 had it the other way round),
            a value is no whole number of at least 0 or does not fit into nnU-Net's 16 bits, background is not 0, a
            region holds background, two classes are the same, or ignore is not the value after all others, which
            nnU-Net asks for.

    Example:
        >>> label_scheme({"labels": {"background": 0, "lesion": 1, "ignore": 2}}, Path("dataset.json")).declared_values
        (0, 1, 2)
    """
    labels = dataset_json.get("labels") if isinstance(dataset_json, dict) else None
    if not isinstance(labels, dict):
        raise InputError(f"{source}: expected a mapping 'labels' from names to label values, found {labels!r}")
    by_name = {name: _values_of_class(name, labels, source) for name in labels}
    if by_name.get("background", (0,)) != (0,):
        raise InputError(f"{source}: expected background to be 0 in 'labels', found {labels['background']!r}")
    # Before the highest value is asked for: nnU-Net wants the ignore label above all others.
    ignored = by_name.pop("ignore", None)
    foreground = {name: values for name, values in by_name.items() if set(values) != {0}}
    for name, values in foreground.items():
        if 0 in values:
            raise InputError(
                f"{source}: expected the region {name} in 'labels' without 0, the background, found {values}"
            )
    highest = max({0}.union(*foreground.values()))
    if highest > _LARGEST_VALUE:
        raise InputError(f"{source}: expected label values of at most {_LARGEST_VALUE} in 'labels', found {highest}")
    if ignored is not None and ignored != (highest + 1,):
        raise InputError(
            f"{source}: expected ignore to be a value of its own in 'labels', the highest: {highest + 1}, found "
            f"{labels['ignore']!r}"
        )
    # A list of one value is a class to nnU-Net, too.
    regions = any(isinstance(value, (list, tuple)) and len(value) > 1 for value in labels.values())
    names = list(foreground)
    for i, name in enumerate(names):
        same = next((other for other in names[:i] if foreground[other] == foreground[name]), None)
        if same is not None:
            raise InputError(
                f"{source}: expected every class in 'labels' to have values of its own, found {same} and {name}: "
                f"{', '.join(map(str, foreground[name]))}"
            )
    return LabelScheme(foreground, None if ignored is None else ignored[0], regions)


def _values_of_class(name: str, labels: Mapping[str, object], source: Path) -> tuple[int, ...]:
    """The label values of a class or, where it is a list, of a region; as nnU-Net does, text of digits is a number."""
    value, values = labels[name], list[int]()
    for item in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(item, str) and re.fullmatch("[0-9]+", item):
            item = int(item)
        if isinstance(item, float) and item.is_integer():
            item = int(item)
        if isinstance(item, bool) or not isinstance(item, int) or item < 0:
            raise InputError(f"{source}: expected integer label values in 'labels', found {labels!r}")
        values.append(int(item))
    if not values:
        raise InputError(f"{source}: expected label values for {name} in 'labels', found an empty list")
    return tuple(values)


def channel_names(dataset_json: Mapping[str, object], source: Path) -> list[str]:
    """The names of the channels, in the order of the images.

    Args:
        dataset_json: the content of dataset.json; ``modality`` is what nnU-Net's first version called them.
        source: its path, for messages.

    Raises:
        InputError: there are none, or they are not numbered.

    Example:
        >>> channel_names({"channel_names": {"10": "FLAIR", "2": "T1"}}, Path("dataset.json"))
        ['T1', 'FLAIR']
    """
    key = "channel_names" if "channel_names" in dataset_json else "modality"
    names = dataset_json.get(key)
    if not isinstance(names, dict) or not _are_numbered(names):
        raise InputError(f'{source}: expected {key} to name channels by number, as in {{"0": "T1"}}, found {names!r}')
    return [str(names[number]) for number in sorted(names, key=int)]


def _are_numbered(names: Mapping[str, object]) -> bool:
    """Whether there are names, each under a number of its own: 1 and 01 would be the same channel twice."""
    if not names or not all(re.fullmatch("[0-9]+", number) for number in names):
        return False
    return len({int(number) for number in names}) == len(names) and all(isinstance(n, str) for n in names.values())
