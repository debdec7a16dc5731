"""The fingerprint of a dataset against nnU-Net's own."""

import json
import multiprocessing
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import pytest

from nnunet_lopsided.commands.fingerprint import main
from nnunet_lopsided.dataset_conversion.phantom import write_phantom_dataset
from nnunet_lopsided.nnunet.fingerprint import write_fingerprint
from nnunet_lopsided.nnunet.raw import raw_dataset


@pytest.mark.slow  # imports nnU-Net and PyTorch
@pytest.mark.parametrize("n_voxels", [1000, 3])
def test_as_nnunet_with_as_many_voxels(nnunet_paths, monkeypatch, n_voxels):
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    write_phantom_dataset(701, n_train=3, n_test=0, shape=(12, 32, 32), spacing_mm=(5, 4, 4), seed=3)
    ours = json.loads(write_fingerprint(raw_dataset(701), n_voxels).read_text())
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: SimpleNamespace(Pool=ThreadPool))
    extractor = DatasetFingerprintExtractor(701, num_processes=1)
    extractor.num_foreground_voxels_for_intensitystats = n_voxels
    extractor.run(overwrite_existing=True)
    (file,) = (nnunet_paths / "nnUNet_preprocessed").glob("*/dataset_fingerprint.json")
    theirs = json.loads(file.read_text())
    measured = "foreground_intensity_properties_per_channel"
    for channel, values in theirs.pop(measured).items():
        assert ours[measured][channel] == pytest.approx(values, rel=1e-6)
    assert len(ours.pop(measured)) == 4
    assert ours == theirs


def test_no_voxels(nnunet_paths, capsys):
    assert main(["-d", "701", "--voxels", "0"]) == 2
    assert "voxels must be at least 1, got 0" in capsys.readouterr().err
