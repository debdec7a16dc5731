"""Writing the files of one checked case: links where they can be, copies or new files where not."""

from __future__ import annotations

import errno
import gzip
import shutil
from pathlib import Path

from nnunet_lopsided.dataset_conversion.converters.case_checking import CheckedCase
from nnunet_lopsided.dataset_conversion.converters.release import Release, SourceCase
from nnunet_lopsided.dataset_conversion.converters.volumes import Volume, VolumeFile
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.completeness import check_complete
from nnunet_lopsided.images import Image, write_image
from nnunet_lopsided.nnunet.raw import link_file

FOLDER_SUFFIX = {"train": "Tr", "test": "Ts"}


def write_case(checked: CheckedCase, release: Release, *, folder: Path, final: Path, ending: str, copy: bool) -> None:
    """Bring the images and the label of a case into a dataset folder.

    Args:
        checked: the case.
        release: whose case it is.
        folder: where the dataset is built.
        final: where it will lie.
        ending: of the dataset's files.
        copy: copy files that would be linked.
    """
    case, side = checked.case, FOLDER_SUFFIX[checked.case.split]
    for channel, name in zip(release.channels, image_names(case, ending), strict=True):
        _place(case.images[channel], folder / f"images{side}" / name, final, copy)
    if checked.label is None or case.label is None:
        return
    target = folder / f"labels{side}" / f"{case.name}{ending}"
    # nnU-Net wants images and labels of one ending.
    linkable = isinstance(case.label, VolumeFile) and case.label.ending == ending
    if linkable and checked.label_is_as_in_source:
        _place(case.label, target, final, copy)
    else:
        write_checked(target, checked.label)


def image_names(case: SourceCase, ending: str) -> list[str]:
    """The names of a case's images in nnU-Net's layout, in the order of the channels."""
    return [f"{case.name}_{index:04d}{ending}" for index in range(len(case.images))]


def _place(volume: Volume, target: Path, final: Path, copy: bool) -> None:
    ending = volume.ending if isinstance(volume, VolumeFile) else ""
    if ending and target.name.endswith(ending):
        if copy:
            shutil.copyfile(volume.path, target)
        else:
            _link(target, volume.path, final)
    elif ending == ".nii" and target.name.endswith(".nii.gz"):
        # Without a name and a time in the header, so that the same voxels give the same bytes.
        with (
            volume.path.open("rb") as source,
            target.open("wb") as file,
            gzip.GzipFile("", "wb", compresslevel=5, fileobj=file, mtime=0) as zipped,
        ):
            shutil.copyfileobj(source, zipped, 1 << 20)
    else:
        write_checked(target, volume.read())


def _link(link: Path, target: Path, final: Path) -> None:
    try:
        link_file(link, target, final)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise InputError(f"{link.parent} is on a file system without symbolic links: use --copy") from error
        raise


def write_checked(path: Path, image: Image) -> None:
    """Write an image and look whether it is all there: SimpleITK says nothing when the disk is full."""
    try:
        write_image(path, image)
        check_complete(path)
    except (RuntimeError, InputError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise OSError(f"cannot write {path}: the file is incomplete, is the disk full? ({reason})") from error
