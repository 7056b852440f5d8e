"""Makes CIFAR10 archives in the real format, whole or spoilt in one place."""

import io
import struct
import tarfile
from pathlib import Path

import numpy as np

NAMES = [f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)]


def rows(count: int, seed: int) -> np.ndarray:
    """Random uint8 [count, 3072]."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def labels_of(array: np.ndarray) -> np.ndarray:
    """The labels that go with rows in these tests, int64 [count]: each row's first byte says it."""
    return (array[:, 0] % 10).astype(np.int64)


def python2_batch(array: np.ndarray, fortran: bool = False, **changes: bytes) -> bytes:
    """The instructions that Python 2's cPickle wrote for the genuine batches (protocol 2).

    Args:
        array: uint8 [n, m]; its labels are `labels_of(array)`.
        fortran: stores the array in Fortran order.
        changes: replacements for the parts of the pickle that are named below.
    """
    raw = array.tobytes("F" if fortran else "C")
    labels = b"".join(b"K" + bytes([label]) for label in labels_of(array))
    parts = {
        "head": b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03",
        "labels": b"U\x06labelsq\x04]q\x05(" + labels + b"e",
        "key": b"U\x04dataq\x06",
        "reconstruct": b"cnumpy.core.multiarray\n_reconstruct\nq\x07",
        "arguments": b"cnumpy\nndarray\nq\x08K\x00\x85q\tU\x01b\x87Rq\n",
        "version": b"(K\x01",
        "shape": b"J" + struct.pack("<i", len(array)) + b"M\x00\x0c\x86",
        "dtype": b"cnumpy\ndtype\nq\x0bU\x02u1K\x00K\x01\x87Rq\x0c",
        "dtype_state": b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
        "order": b"\x88" if fortran else b"\x89",
        "raw": b"T" + struct.pack("<i", len(raw)) + raw,
        "build": b"tb",
        "tail": b"U\tfilenamesq\r]q\x0e(U\x05a.pngU\x05b.pngeu.",
    }
    assert changes.keys() <= parts.keys()
    return b"".join({**parts, **changes}.values())


def write_archive(path: Path, batches: list[bytes], extra: list[tarfile.TarInfo] = ()) -> Path:
    """Writes the five batches, out of order as in the genuine archive, among other members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        add_member(archive, "cifar-10-batches-py/readme.html", b"<html>")
        for index in (3, 2, 1, 4, 0):
            add_member(archive, NAMES[index], batches[index])
        for member in extra:
            archive.addfile(member)
    return path


def add_member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
