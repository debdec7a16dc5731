"""Out-of-fold predictions of magnified images: lesions too small to be annotated become as large as annotated ones."""

from __future__ import annotations

import math
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.folders import check_holds_only
from nnunet_lopsided.files.json import file_digest, read_json, write_json
from nnunet_lopsided.files.locks import locked
from nnunet_lopsided.files.new_files import new_file
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.nnunet.network import Network, reason_of
from nnunet_lopsided.nnunet.raw import Case

_RECORD = "magnified.json"


@dataclass(frozen=True, kw_only=True)
class OtherImages:
    """Images to predict, where these are not the ones that a fold validates.

    Attributes:
        folder: in the fold's folder; it exists, and gets a folder per factor.
        title: what the progress bar calls them.
        what: what an error message calls them.
        without: how to do without them, as an error message ends.
    """

    folder: str = ""
    title: str = ""
    what: str = "magnified images"
    without: str = "--magnify without a number audits without them"


_ITS_OWN = OtherImages()


def checked_factors(factors: Sequence[float], option: str = "--magnify") -> tuple[float, ...]:
    """How many times images are magnified, ascending.

    Args:
        factors: as given.
        option: what they were given as.

    Raises:
        InputError: one is not above 1, or two are the same.

    Example:
        >>> checked_factors([2, 1.5])
        (1.5, 2)
    """
    named = {f"{factor:g}" for factor in factors}  # the names of their folders must differ, too
    if not all(math.isfinite(factor) and factor > 1 for factor in factors) or len(named) < len(factors):
        raise InputError(f"{option} must be different numbers above 1, got {' '.join(f'{f:g}' for f in factors)}")
    return tuple(sorted(factors))


def predict_magnified(
    fold_folder: Path,
    checkpoint: str,
    factors: Sequence[float],
    cases: Sequence[Case],
    device: str | None,
    n_workers: int,
    *,
    torch_resampling: bool = False,
    of: OtherImages = _ITS_OWN,
) -> dict[str, list[Path]]:
    """The probabilities of cases by one fold's model, of their images magnified; what is there already is kept.

    nnU-Net's own predictor, told that the voxels are so many times as large as they are: it resamples the image to
    that many more voxels along every axis that the configuration resamples (in the plane, where it is 2D), and the
    probabilities back. Without mirroring, but for images as they are, which nnU-Net's own validation mirrors.

    Args:
        fold_folder: nnU-Net's ``fold_X``.
        checkpoint: name of the model's file in it.
        factors: how many times; 1: as they are.
        cases: which; the model must not have trained on them.
        device: cpu, cuda or mps; None: :func:`best_device`.
        n_workers: cases read, resampled and written at the same time; the network sees them one by one.
        torch_resampling: see :class:`~nnunet_lopsided.nnunet.network.Network`; predictions that were resampled
            otherwise are made again.
        of: the cases' images, where these are not the ones that the fold validates.

    Returns:
        By case, an array file per factor as nnU-Net's validation writes, in ``fold_X/validation_x<factor>``.

    Raises:
        InputError: an image cannot be read, the network cannot predict, the folder cannot be written, or another
            process is writing it.
    """
    if not factors:
        return {case.name: [] for case in cases}
    # A later training leaves another checkpoint under the same name; its digest tells, and what it predicted goes.
    digest = file_digest(fold_folder / checkpoint)
    made_by: dict[str, object] = {"checkpoint_sha256": digest}
    if torch_resampling:
        made_by["torch_resampling"] = True
    # Loaded once, when the first case is predicted; never, where all predictions are there already.
    network = cache(
        lambda: _Network(fold_folder, checkpoint, device or best_device(), torch_resampling=torch_resampling, of=of)
    )
    by_factor = [
        _arrays(fold_folder, made_by, factor, cases, network, n_workers=n_workers, of=of) for factor in factors
    ]
    return {case.name: [arrays[case.name] for arrays in by_factor] for case in cases}


def _arrays(
    fold_folder: Path,
    of_model: dict[str, object],
    factor: float,
    cases: Sequence[Case],
    network: Callable[[], _Network],
    *,
    n_workers: int,
    of: OtherImages,
) -> dict[str, Path]:
    folder = fold_folder / of.folder / f"validation_x{factor:g}"
    made_by = {**of_model, "factor": factor}
    arrays = {case.name: folder / f"{case.name}.npz" for case in cases}

    def lacking() -> list[Case]:
        return [case for case in cases if not is_whole(arrays[case.name])]

    # Asked again under the lock: another audit of the same fold may have predicted meanwhile.
    if not is_of(folder / _RECORD, made_by) or lacking():
        magnified = "" if factor == 1 else f", magnified {factor:g} times"
        title = f"{fold_folder.name}{of.title}{magnified}"
        try:
            with locked(fold_folder):
                if not is_of(folder / _RECORD, made_by):
                    begin(folder / _RECORD, made_by, ("*.npz",))
                predict = network().predict
                for_each(lambda case: predict(case, factor, arrays[case.name]), lacking(), n_workers, title)
        except InputError:
            raise
        except Exception as error:  # of any kind: nnU-Net's
            raise InputError(f"{folder}: {_cannot(error, of)}") from error
    return arrays


def is_of(record: Path, made_by: Mapping[str, object]) -> bool:
    """Whether the folder of a record was made by this."""
    return record.is_file() and read_json(record) == made_by


def begin(record: Path, made_by: Mapping[str, object], names: Sequence[str]) -> None:
    """Make the folder of a record empty: what the model before it was trained again made goes, other files are refused.

    Args:
        record: its file.
        made_by: its new content.
        names: patterns of what else the folder may hold.

    Raises:
        InputError: it holds something else.
    """
    folder = record.parent
    if record.is_file():
        check_holds_only(folder, (record.name, *names, ".*"))
        # Moved first: an interrupt while it is removed must not leave it without its record.
        former = folder.with_name(f".{folder.name}.former")
        shutil.rmtree(former, ignore_errors=True)
        folder.rename(former)
        shutil.rmtree(former)
    elif folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise InputError(f"{folder}: expected the predictions of an audit, found other files and no {record.name}")
    folder.mkdir(exist_ok=True)
    write_json(record, made_by)


def _cannot(error: Exception, of: OtherImages) -> str:
    return f"cannot predict {of.what}: {reason_of(error)}; {of.without}"


class _Network(Network):
    """A fold's network; only images as they are it mirrors."""

    def __init__(
        self, fold_folder: Path, checkpoint: str, device: str, *, torch_resampling: bool, of: OtherImages
    ) -> None:
        self._of, fold = of, fold_folder.name.removeprefix("fold_")
        try:
            super().__init__(fold_folder.parent, (fold,), checkpoint, device, torch_resampling=torch_resampling)
        except Exception as error:  # of any kind: what a damaged file makes of pickle
            raise InputError(f"{fold_folder / checkpoint}: {_cannot(error, of)}") from error

    def predict(self, case: Case, factor: float, array: Path) -> None:
        """Write the probabilities of a case, first under a temporary name."""
        import numpy as np

        try:
            probabilities = self.probabilities(self.read(case.images), factor, mirrored=factor == 1)
        except Exception as error:  # of any kind: nnU-Net's
            images = ", ".join(map(str, case.images))
            raise InputError(f"case {case.name}: {images}: {_cannot(error, self._of)}") from error
        with new_file(array) as unfinished:
            np.savez_compressed(unfinished, probabilities=probabilities)


def is_whole(array: Path) -> bool:
    """Whether an array file is there, and no archive that was cut off, which holds no probabilities."""
    return array.is_file() and (array.suffix != ".npz" or zipfile.is_zipfile(array))


def best_device() -> str:
    """cuda where there is one, otherwise cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
