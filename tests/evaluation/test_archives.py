"""nnunet_lopsided.evaluation.archives."""

import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.archives import array_header, read_array, read_channels


def arrays():
    rng = np.random.default_rng(0)
    return {
        "noise": rng.random((3, 40, 50, 60)).astype(np.float32),  # larger than the pieces it is read in
        "zeros": np.zeros((2, 80, 90, 70), np.float16),  # inflates a thousandfold
        "one": rng.random((1, 4, 5)),
        "empty": np.zeros((2, 0, 5), np.float32),
        "fortran": np.asfortranarray(rng.random((2, 4, 5, 6)).astype(np.float32)),
        "big endian": rng.random((2, 4, 5)).astype(">f4"),
    }


@pytest.mark.parametrize("name", list(arrays()))
@pytest.mark.parametrize("save", [np.savez_compressed, np.savez])
def test_channels_are_those_of_numpy(tmp_path, name, save):
    array = arrays()[name]
    save(tmp_path / "a.npz", other=np.zeros(3), probabilities=array)
    channels = list(read_channels(tmp_path / "a.npz"))
    np.testing.assert_array_equal(np.stack(channels), array)
    np.testing.assert_array_equal(read_array(tmp_path / "a.npz"), array)
    header = array_header(tmp_path / "a.npz")
    assert (header.shape, header.dtype) == (array.shape, array.dtype)


def test_npy(tmp_path):
    array = arrays()["noise"]
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(np.stack(list(read_channels(tmp_path / "a.npy"))), array)
    assert array_header(tmp_path / "a.npy").shape == array.shape


def test_objects_are_never_unpickled_and_short_files_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}, {}], dtype=object))
    with pytest.raises(InputError, match=r"found objects, which are never unpickled, in .*a\.npy"):
        read_array(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", probabilities=np.array([{}, {}], dtype=object))
    with pytest.raises(InputError, match=r"found objects, which are never unpickled, in .*a\.npz"):
        list(read_channels(tmp_path / "a.npz"))
    np.save(tmp_path / "a.npy", np.ones((4, 5)))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-8])
    with pytest.raises(InputError, match=r"cannot read .*a\.npy"):
        read_array(tmp_path / "a.npy")


def test_one_header_is_parsed_at_a_time(tmp_path, monkeypatch):
    """ast.literal_eval, by which numpy parses them, is not safe in threads of Python 3.11."""
    np.savez_compressed(tmp_path / "a.npz", probabilities=np.ones((2, 3)))
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    parse, at_once, most = np.lib.format.read_array_header_1_0, [], []

    def slow_parse(file):
        at_once.append(1)
        most.append(len(at_once))
        time.sleep(0.002)
        at_once.pop()
        return parse(file)

    monkeypatch.setattr(np.lib.format, "read_array_header_1_0", slow_parse)
    monkeypatch.setattr(np, "load", None)
    with ThreadPoolExecutor(4) as pool:
        for work in (lambda i: array_header(tmp_path / f"a.np{'zy'[i % 2]}"), lambda i: read_array(tmp_path / "a.npy")):
            list(pool.map(work, range(20)))
        list(pool.map(lambda i: list(read_channels(tmp_path / "a.npz")), range(20)))
    assert len(most) == 60
    assert max(most) == 1


def test_v1_key_and_none(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", softmax=np.ones((2, 3)))
    assert len(list(read_channels(tmp_path / "a.npz"))) == 2
    np.savez_compressed(tmp_path / "a.npz", logits=np.ones((2, 3)))
    with pytest.raises(InputError, match=r"expected an array 'probabilities'.* found logits in .*a\.npz"):
        list(read_channels(tmp_path / "a.npz"))


@pytest.mark.parametrize("seed", range(30))
def test_damage_anywhere_is_noticed_or_does_no_harm(tmp_path, seed):
    """One changed byte: the very same values, or an error; never other values."""
    rng = np.random.default_rng(seed)
    array = np.round(rng.random((2, 9, 10)), 2)
    np.savez_compressed(tmp_path / "a.npz", probabilities=array)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    (tmp_path / "a.npz").write_bytes(content)
    try:
        found = np.stack(list(read_channels(tmp_path / "a.npz")))
    except InputError as error:
        message = str(error)
    else:
        np.testing.assert_array_equal(found, array)
        return
    assert "a.npz" in message


def test_a_member_shorter_than_its_header_says(tmp_path):
    np.save(tmp_path / "probabilities.npy", np.ones((2, 3000)))
    content = (tmp_path / "probabilities.npy").read_bytes()[:-8000]
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("probabilities.npy", content)
    with pytest.raises(InputError, match=r"cannot read .*a\.npz: probabilities\.npy ends early"):
        list(read_channels(tmp_path / "a.npz"))


def test_deflated_data_that_ends_early_with_bytes_after_it(tmp_path):
    """What follows the end of the deflated data is never consumed; it must not be waited for."""
    np.savez_compressed(tmp_path / "a.npz", probabilities=np.random.default_rng(0).random((2, 5000)))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        size = archive.getinfo("probabilities.npy").compress_size
        inflated = archive.read("probabilities.npy")
    start = 30 + len("probabilities.npy") + int.from_bytes(content[28:30], "little")
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    short = deflate.compress(inflated[:40000]) + deflate.flush()
    content[start : start + size] = short + b"x" * (size - len(short))
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read .*a\.npz: probabilities\.npy ends early"):
        list(read_channels(tmp_path / "a.npz"))


def test_a_header_whose_brackets_do_not_close(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"(2, 3), }", b"(2, 3 , {"))
    with pytest.raises(InputError, match=r"cannot read .*a\.npy"):
        array_header(tmp_path / "a.npy")
