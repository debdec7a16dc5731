"""What libdeflate and ISA-L read is what zlib reads, and what is damaged is called the same without them."""

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
from nnunet_lopsided.evaluation.archives import alone, read_channels
from nnunet_lopsided.files import completeness, inflating
from nnunet_lopsided.files.completeness import check_complete
from nnunet_lopsided.files.inflating import ENGINES, gunzip, libdeflate
from nnunet_lopsided.images import Geometry, Image, read_image, write_image

GEOMETRY = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
RNG = np.random.default_rng(0)
CHANNELS = RNG.random((3, 4, 30, 40), np.float32)


@contextmanager
def without(*libraries):
    with pytest.MonkeyPatch.context() as patch:
        if "libdeflate" in libraries:
            patch.setattr(inflating, "libdeflate", lambda: None)
        if "isal" in libraries:
            for module in (archives, completeness, inflating):
                patch.setattr(module, "ENGINES", (zlib,))
        yield


# What may be missing: beside each other they say who reads otherwise.
FEWER = (("libdeflate",), ("isal",), ("libdeflate", "isal"))


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


def test_they_are_there():
    """Their time is what the evaluation of many cases is made of."""
    assert [engine.__name__.rpartition(".")[2] for engine in ENGINES] == ["isal_zlib", "zlib"]
    assert libdeflate() is not None


def test_libdeflate_alone_reads_what_is_sound(tmp_path, monkeypatch):
    """That no other is asked: it would not be noticed but by the clock."""
    np.savez_compressed(tmp_path / "a.npz", probabilities=CHANNELS)
    for module in (archives, inflating):
        monkeypatch.setattr(module, "ENGINES", ())
    monkeypatch.setattr(gzip, "decompress", None)
    assert channels(tmp_path / "a.npz") == CHANNELS.tobytes()
    assert gunzip(gzip.compress(b"abc" * 99)).tobytes() == b"abc" * 99


def test_a_large_archive_is_read_channel_by_channel(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", probabilities=CHANNELS)
    at_once = list(read_channels(tmp_path / "a.npz"))
    assert at_once[0].base is at_once[1].base is not None
    monkeypatch.setattr(archives, "_AT_ONCE_BYTES", CHANNELS.nbytes)  # without the header
    one_by_one = list(read_channels(tmp_path / "a.npz"))
    assert one_by_one[0].base is not one_by_one[1].base
    np.testing.assert_array_equal(at_once, one_by_one)


def test_a_channel_of_many_is_kept_without_the_others():
    few, many = np.zeros((2, 5, 6)), np.zeros((3, 5, 6))
    assert alone(few[1]).base is few
    assert alone(many[1]).base is None
    assert alone(many[1] + 1).base is None


@pytest.mark.parametrize("values", [CHANNELS, np.zeros((2, 8, 60, 60), np.float32)], ids=["noise", "zeros"])
def test_channels(tmp_path, values):
    np.savez_compressed(tmp_path / "whole.npz", probabilities=values)
    assert channels(tmp_path / "whole.npz") == values.tobytes()
    content, path = (tmp_path / "whole.npz").read_bytes(), tmp_path / "a.npz"
    n_read = 0
    for name, damaged in damages(content, 60):
        path.write_bytes(damaged)
        found = outcome(channels, path)
        for missing in FEWER:
            with without(*missing):
                assert found == outcome(channels, path), (name, missing)
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
        for missing in FEWER:
            with without(*missing):
                assert found == outcome(read, path), (name, missing)


def test_an_image_may_be_written_to(tmp_path):
    write_image(tmp_path / "a.nii.gz", Image(np.zeros((2, 3, 4), np.int16), GEOMETRY))
    read_image(tmp_path / "a.nii.gz").array[:] = 1


def test_several_members():
    assert gunzip(gzip.compress(b"a") + gzip.compress(b"b") + bytes(7)).tobytes() == b"ab"


@pytest.mark.parametrize("second", [b"abc", b"xyz", b"abcd", b""])
def test_two_members_of_any_length(second):
    """The end of the file tells of the last one alone: of two alike everything that is compared fits the first."""
    assert gunzip(gzip.compress(b"abc") + gzip.compress(second)).tobytes() == b"abc" + second
    with without("libdeflate"):
        assert gunzip(gzip.compress(b"abc") + gzip.compress(second)).tobytes() == b"abc" + second


def test_a_name_in_the_header(tmp_path):
    with gzip.open(tmp_path / "named.gz", "wb") as file:
        file.write(b"abc" * 50)
    content = (tmp_path / "named.gz").read_bytes()
    assert b"named" in content
    assert gunzip(content).tobytes() == b"abc" * 50


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"\x1f\x8b" + bytes(16), gzip.compress(b"", mtime=0)])
def test_short_and_empty_ones(content):
    def read():
        try:
            return gunzip(content).tobytes()
        except (OSError, EOFError, zlib.error) as error:
            return str(error)

    found = read()
    with without("libdeflate"):
        assert found == read()


def test_a_length_that_is_a_lie_costs_no_memory(monkeypatch):
    content = gzip.compress(b"abc")[:-4] + b"\xff" * 4  # 4 GiB
    monkeypatch.setattr(np, "empty", None)
    with pytest.raises(OSError, match="length"):
        gunzip(content)


def test_bytes_between_the_data_and_their_checksum():
    whole = gzip.compress(b"abc" * 9)
    with pytest.raises(OSError, match="CRC"):
        gunzip(whole[:-8] + b"more" + whole[-8:])


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
    for missing in FEWER:
        with without(*missing):
            assert found == outcome(channels, tmp_path / "bomb.npz")
    assert "CRC" in found


def test_one_home():
    """What reads compressed files asks this module; the others write, or look at a few bytes."""
    package = Path(inflating.__file__).parents[1]
    words = ("decompressobj", "gzip.decompress", "imagecodecs.")
    asks = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(word in path.read_text(encoding="utf-8") for word in words)
    }
    assert asks == {"evaluation/archives.py", "files/completeness.py", "files/inflating.py"}
