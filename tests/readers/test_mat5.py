"""MATLAB's Level 5: what scipy reads, we read; whatever its bytes claim, only `ReadError` comes of it."""

import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from anyecg.errors import ReadError
from anyecg.readers import read
from anyecg.readers.tabular.mat5 import read_level5

COUNTS = np.random.default_rng(0).integers(-900, 900, (3, 750)).astype(np.int16)


def variables(path: Path) -> dict[str, Any]:
    return read_level5(path, memoryview(path.read_bytes()))


def level5(*matrices: bytes, packed: bool = False) -> bytes:
    """Return a file of matrices, little-endian."""
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    bodies = [struct.pack("<2I", 14, len(matrix)) + matrix for matrix in matrices]
    if packed:
        bodies = [struct.pack("<2I", 15, len(body)) + body for body in map(zlib.compress, bodies)]
    return head + b"".join(bodies)


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<2I", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(flags: int = 6, dims: tuple[int, ...] = (1, 3), data: bytes = b"", name: bytes = b"val") -> bytes:
    """Return the inside of a matrix element: flags, dimensions, name, data."""
    shape = struct.pack(f"<{len(dims)}i", *dims)
    return element(6, struct.pack("<2I", flags, 0)) + element(5, shape) + element(1, name) + data


THREE = element(9, struct.pack("<3d", 1, 2, 3))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        COUNTS,
        COUNTS.astype(np.float64) / 3,
        COUNTS.astype(np.float32).T,
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.array([[7.0]]),
        np.array([[1, 2]], np.int64),
        np.array([[True, False]]),
        np.empty((0, 0)),
    ],
)
def test_numbers_are_those_of_scipy(tmp_path: Path, value: np.ndarray, packed: bool) -> None:
    path = tmp_path / "a.mat"
    savemat(path, {"x": value}, do_compression=packed)
    ours, theirs = variables(path)["x"], loadmat(path)["x"]
    assert ours.shape == theirs.shape
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("packed", [False, True])
def test_texts_cells_and_structs(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "a.mat"
    leads = np.array(["I", "II", "V1"], dtype=object)
    values: dict[str, Any] = {"ECG": {"data": COUNTS, "leads": leads, "more": {"sex": "Männlich"}}, "fs": 250.0}
    savemat(path, values | {"rows": np.array(["ab", "cd"])}, do_compression=packed)
    found = variables(path)
    assert np.array_equal(found["ECG"]["data"], COUNTS)
    assert found["ECG"]["leads"] == [["I"], ["II"], ["V1"]]
    assert found["ECG"]["more"]["sex"] == ["Männlich"]
    assert found["rows"] == ["ab", "cd"]
    assert found["fs"].tolist() == [[250.0]]


def test_what_is_no_signal_is_passed_over(tmp_path: Path) -> None:
    from scipy.sparse import csc_array

    path = tmp_path / "a.mat"
    savemat(path, {"sparse": csc_array(np.eye(3)), "z": np.array([1j, 2]), "val": COUNTS})
    found = variables(path)
    assert found["sparse"] is None
    assert found["z"] is None
    assert np.array_equal(read(path, fs=250, unit="uV").signal, (COUNTS * 1e-3).astype(np.float32))


def test_big_endian(tmp_path: Path) -> None:
    """A file of the other byte order, and in it the mark of 16 bits."""
    path = tmp_path / "a.mat"
    counts = np.array([[5, -32768, -700]], ">i2").repeat(20, axis=1)
    body = struct.pack(">2I2I", 6, 8, 10, 0) + struct.pack(">2I2i", 5, 8, *counts.shape) + struct.pack(">2I", 1, 3)
    body += b"val".ljust(8, b"\0") + struct.pack(">2I", 3, counts.nbytes) + counts.tobytes("F")
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + struct.pack(">2I", 14, len(body)) + body)
    record = read(path, fs=250, unit="uV")
    assert np.array_equal(np.isnan(record.signal[0]), counts[0] == -32768)
    assert record.signal[0, -1] == np.float32(-0.7)


def test_a_data_type_that_is_none_of_numbers(tmp_path: Path) -> None:
    """What ended the process inside scipy (fuzz case mat-1-57072): numbers said to be a matrix."""
    for packed in (False, True):
        path = tmp_path / "a.mat"
        path.write_bytes(level5(matrix(data=struct.pack("<2I", 14, 24) + THREE[8:]), packed=packed))
        with pytest.raises(ReadError, match="numbers of data type 14"):
            read(path, fs=250, unit="mV")


@pytest.mark.parametrize(
    ("inside", "why"),
    [
        (matrix(data=struct.pack("<2I", 9, 2**31) + b"123"), "an element of 2147483648 bytes"),
        (matrix(data=struct.pack("<2I", 9 | 7 << 16, 0)), "a small element of 7 bytes"),
        (matrix(dims=(1, 4), data=THREE), r"3 numbers in a matrix of shape \(1, 4\)"),
        (matrix(dims=(-1, -3), data=THREE), r"a matrix of shape \(-1, -3\)"),
        (matrix(dims=(2**31 - 1,) * 32, data=THREE), "3 numbers in a matrix"),
        (matrix(dims=(1,) * 33, data=THREE), "33 dimensions"),
        (matrix(flags=1, dims=(2**30, 2**30)), "matrices within matrices"),
        (matrix(flags=1, dims=(1, 1), data=THREE), "data type 9, not a matrix"),
        (matrix(flags=2, dims=(1, 1), data=element(5, bytes(4)) + element(1, b"a")), "fields have no names"),
        (matrix(flags=4, dims=(1, 9), data=element(16, b"abc")), "3 characters"),
        (matrix(flags=4, dims=(0, 3), data=element(16, b"abc")), "3 characters"),
        (b"12345", "an element at byte 0 of 5"),
    ],
)
def test_claims_that_cannot_be(tmp_path: Path, inside: bytes, why: str) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(level5(inside))
    with pytest.raises(ReadError, match=why):
        read(path, fs=250, unit="mV")


def test_cells_in_cells_without_end(tmp_path: Path) -> None:
    inside = matrix(data=THREE)
    for _ in range(200):
        inside = matrix(flags=1, dims=(1, 1), data=struct.pack("<2I", 14, len(inside)) + inside)
    (tmp_path / "a.mat").write_bytes(level5(inside))
    with pytest.raises(ReadError, match="matrices within matrices"):
        read(tmp_path / "a.mat", fs=250, unit="mV")


def test_damage_anywhere(tmp_path: Path) -> None:
    """A thousand damaged copies of a file with everything in it: each is read or refused."""
    path = tmp_path / "a.mat"
    savemat(path, {"ECG": {"data": COUNTS[:, :40], "leads": np.array(["I", "II", "V1"], dtype=object)}, "fs": 250.0})
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 4))):
            data[rng.randrange(126, len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        path.write_bytes(data[: rng.choice((len(data), rng.randrange(129, len(data))))])
        try:
            variables(path)
        except ReadError:
            refused += 1
    assert 125 < refused < 975
