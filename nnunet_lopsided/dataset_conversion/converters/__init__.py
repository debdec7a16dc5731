"""Converters of public releases into nnU-Net's raw layout: a module per release says how to find its cases.

Every module has ``find(source, ...) -> Release``; ``writing.py`` checks and writes what it found.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_lopsided.errors import InputError

if TYPE_CHECKING:
    from nnunet_lopsided.dataset_conversion.converters.options import Converted, Options


@dataclass(frozen=True)
class Converter:
    """A release that can be converted.

    Attributes:
        module: of this package, with ``find``.
        dataset_name: what the dataset is called unless the user says otherwise.
        summary: one line on the release.
        expected: files that ``find`` looks for, for the message when there are none.
    """

    module: str
    dataset_name: str
    summary: str
    expected: str


CONVERTERS: Mapping[str, Converter] = {
    "brainmetshare": Converter(
        "brainmetshare",
        "BrainMetShare",
        "Stanford BrainMetShare, PNG or NIfTI release",
        "Mets_005/{0,1,2,3,seg}/N.png or Mets_005/{bravo,t1_pre,t1_gd,flair,seg}.nii.gz",
    ),
    "brats-mets": Converter(
        "brats_mets",
        "BraTSMETS",
        "BraTS-METS 2023 to 2025, Yale Pretreat-MetsToBrain-Masks",
        "BraTS-MET-00001-000-{t1n,t1c,t2w,t2f,seg}.nii.gz",
    ),
    "ucsf-bmsr": Converter(
        "ucsf_bmsr",
        "UCSFBMSR",
        "UCSF-BMSR",
        "100101A_{T1pre,T1post,FLAIR,subtraction,T2Synth,seg,BraTS-seg}.nii.gz",
    ),
    "nyumets": Converter(
        "nyumets",
        "NYUMets",
        "NYUMets-Brain, studies with a segmentation",
        "patientId/<digits>/studyId/<digits>/{T1,CT1,T2,FLAIR,RTSTRUCT_segmentation}.nii.gz",
    ),
    "ljubljana-ms": Converter(
        "ljubljana_ms",
        "LjubljanaMS",
        "the multiple sclerosis set of Ljubljana",
        "patient01/{FLAIR,T1W,T1WKS,T2W,consensus_gt}.nii.gz",
    ),
    "lits": Converter(
        "lits",
        "LiTS",
        "LiTS, or Task03 of the decathlon: liver tumours",
        "volume-0.nii and segmentation-0.nii, or imagesTr/liver_0.nii.gz and labelsTr/liver_0.nii.gz",
    ),
    "luna16": Converter(
        "luna16",
        "LUNA16",
        "LUNA16 with masks from the XML files of LIDC",
        "subset0/<series>.mhd and XML files with the reading sessions",
    ),
    "folder": Converter(
        "folder",
        "Converted",
        "any folder, by file name patterns",
        "files that match the patterns of --channels and --labels",
    ),
    "dicom": Converter(
        "dicom",
        "Converted",
        "a folder of DICOM files, by what series are called; labels from DICOM SEG",
        "series of single slices, and a DICOM SEG with the lesions in every study",
    ),
}


def convert(converter: str, source: str | Path, options: Options, **find_options: object) -> Converted:
    """Write a release as a raw nnU-Net dataset.

    Args:
        converter: a key of :data:`CONVERTERS`.
        source: any folder above the files of the release; it is never written to.
        options: how to write the dataset; an empty name stands for the converter's own.
        **find_options: of the converter's ``find``.

    Returns:
        The dataset's folder, counts, and what the user must know.

    Raises:
        InputError: the source holds no such cases, or they are broken, or an option does not fit.
        OSError: a file could not be written.
    """
    from nnunet_lopsided.dataset_conversion.converters.writing import write_release

    info, source = CONVERTERS[converter], Path(source)
    # Only the one that is asked for: all of them together would make the command start later.
    module = importlib.import_module(f"{__name__}.{info.module}")
    # Not among the options that conversion.json holds: the result does not depend on it.
    parallel = {"n_workers": options.n_workers} if converter == "luna16" else {}
    release = module.find(source, **find_options, **parallel)
    if not release.cases:
        raise InputError(f"{source}: no case found, expected {info.expected}")
    options = replace(options, name=options.name or info.dataset_name)
    settings = {"converter": converter, "source": str(source.resolve()), "options": _plain(find_options)}
    # LUNA16 has its own, which writes the reader variants beside the dataset.
    write = getattr(module, "write", write_release)
    converted: Converted = write(release, options, settings)
    return converted


def _plain(options: Mapping[str, object]) -> dict[str, object]:
    # What JSON can hold, for conversion.json.
    return {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
