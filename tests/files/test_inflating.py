"""What ISA-L reads is what zlib reads, and what is damaged is called the same with and without it."""

import gzip
import shutil
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation import archives
from nnunet_lopsided.evaluation.archives import read_channels
from nnunet_lopsided.files import completeness, inflating
from nnunet_lopsided.files.completeness import check_complete
from nnunet_lopsided.files.inflating import ENGINES, gunzip
from nnunet_lopsided.images import Geometry, Image, read_image, write_image

GEOMETRY = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
RNG = np.random.default_rng(0)
CHANNELS = RNG.random((3, 4, 30, 40), np.float32)


@contextmanager
def by_zlib_alone():
    with pytest.MonkeyPatch.context() as patch:
        for module in (archives, completeness, inflating):
            patch.setattr(module, "ENGINES", (zlib,))
        yield


def outcome(read, path):
    """What was read, as bytes, or what was said."""
    try:
        return read(path)
    except InputError as error:
        return str(error)


def channels(path):
    return b"".join(channel.tobytes() for channel in read_channels(path))


def voxels(path):
    return read_image(path).array.tobytes()


def damages(content, start):
    """By name: a file cut off, emptied, and with single bytes changed, from the first byte of its data on."""
    yield "whole", content
    for n in (0, 5, start + 1, len(content) // 2, len(content) - 9, len(content) - 5, len(content) - 1):
        yield f"first {n}", content[:n]
    for at in (start, start + 1, start + 7, len(content) // 2, len(content) - 9, len(content) - 6, len(content) - 2):
        yield f"byte {at}", content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]
    yield "zeros", bytes(len(content))
    yield "padded", content + bytes(100)
    yield "more", content + b"more"


def test_isal_is_there():
    """Its time is what the evaluation of many cases is made of."""
    assert [engine.__name__.rpartition(".")[2] for engine in ENGINES] == ["isal_zlib", "zlib"]


@pytest.mark.parametrize("values", [CHANNELS, np.zeros((2, 8, 60, 60), np.float32)], ids=["noise", "zeros"])
def test_channels(tmp_path, values):
    np.savez_compressed(tmp_path / "whole.npz", probabilities=values)
    assert channels(tmp_path / "whole.npz") == values.tobytes()
    content, path = (tmp_path / "whole.npz").read_bytes(), tmp_path / "a.npz"
    n_read = 0
    for name, damaged in damages(content, 60):
        path.write_bytes(damaged)
        found = outcome(channels, path)
        with by_zlib_alone():
            assert found == outcome(channels, path), name
        n_read += isinstance(found, bytes)
    assert 1 <= n_read < 10


def test_a_wrong_checksum_of_an_archive(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, probabilities=CHANNELS)
    with zipfile.ZipFile(path) as archive:
        checksum = archive.infolist()[0].CRC.to_bytes(4, "little")
    content = path.read_bytes()
    assert content.count(checksum) >= 1
    path.write_bytes(content.replace(checksum, bytes(4)))
    with pytest.raises(InputError, match=r"bad CRC-32 of probabilities\.npy|Bad CRC-32"):
        channels(path)


def test_channels_that_were_read_before_the_damage_are_given_once(tmp_path):
    """The second library goes on where the first has stopped."""
    path = tmp_path / "a.npz"
    np.savez_compressed(path, probabilities=CHANNELS)
    content = bytearray(path.read_bytes())
    content[-len(content) // 10] ^= 0x55  # in the last channel
    path.write_bytes(content)
    read: list[NDArray[np.generic]] = []
    with pytest.raises(InputError, match=r"a\.npz"):
        read.extend(read_channels(path))
    assert len(read) >= 1
    assert all(np.array_equal(mine, whole) for mine, whole in zip(read[:2], CHANNELS, strict=False))
    assert len(read) <= len(CHANNELS)


@pytest.mark.parametrize("read", [voxels, check_complete])
def test_images(tmp_path, read):
    array = (RNG.random((5, 30, 40)) < 0.1).astype(np.uint8)
    write_image(tmp_path / "whole.nii.gz", Image(array, GEOMETRY))
    assert voxels(tmp_path / "whole.nii.gz") == array.tobytes()
    path = tmp_path / "a.nii.gz"
    for name, damaged in damages((tmp_path / "whole.nii.gz").read_bytes(), 12):
        path.write_bytes(damaged)
        found = outcome(read, path)
        with by_zlib_alone():
            assert found == outcome(read, path), name


def test_an_image_may_be_written_to(tmp_path):
    write_image(tmp_path / "a.nii.gz", Image(np.zeros((2, 3, 4), np.int16), GEOMETRY))
    read_image(tmp_path / "a.nii.gz").array[:] = 1


def test_several_members():
    assert gunzip(gzip.compress(b"a") + gzip.compress(b"b") + bytes(7)) == b"ab"


def test_an_archive_that_holds_more_than_it_says(tmp_path):
    """Only as much is inflated as its header announces: what follows is not kept, and its checksum tells."""
    values = np.zeros((2, 64, 64, 64), np.float32)
    np.savez_compressed(tmp_path / "a.npz", probabilities=values)
    shutil.copy(tmp_path / "a.npz", tmp_path / "bomb.npz")
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with zipfile.ZipFile(tmp_path / "a.npz") as whole:
            start = whole.read("probabilities.npy")
        archive.writestr("probabilities.npy", start + bytes(50_000_000))
    found = outcome(channels, tmp_path / "bomb.npz")
    with by_zlib_alone():
        assert found == outcome(channels, tmp_path / "bomb.npz")
    assert "CRC" in found


def test_one_home():
    """What reads compressed files asks this module; the others write, or look at a few bytes."""
    package = Path(inflating.__file__).parents[1]
    asks = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(word in path.read_text(encoding="utf-8") for word in ("decompressobj", "gzip.decompress"))
    }
    assert asks == {"evaluation/archives.py", "files/completeness.py", "files/inflating.py"}
