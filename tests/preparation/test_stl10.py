"""STL10's preparation, on archives in the real format."""

import gzip
import io
import os
import struct
import tarfile
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from isal import isal_zlib

from common.data import open_source
from common.parsers import gzip_reader
from tests.data.archives import add_member
from tests.preparation.archives import STL10_MEMBER, write_stl10
from tests.preparation.scripts import run

PLANES = np.random.default_rng(0).integers(0, 256, (101, 3, 96, 96), dtype=np.uint8)
UPRIGHT = PLANES.transpose(0, 3, 2, 1)


def by_opencv(size: int) -> np.ndarray:
    shape = (size, size)
    return np.stack([cv2.resize(image, shape, interpolation=cv2.INTER_LINEAR) for image in UPRIGHT])


@pytest.fixture(params=["zlib", "isal"], autouse=True)
def unpacking(request, monkeypatch):
    """The library that unpacks: each must do the same."""
    library = {"zlib": zlib, "isal": isal_zlib}[request.param]
    monkeypatch.setattr(gzip_reader, "library", library)
    return request.param


@pytest.fixture
def archive(tmp_path):
    return write_stl10(tmp_path / "stl10_binary.tar.gz", PLANES, test_X=bytes(27_648 * 3))


def prepare(archive, *options):
    return run("STL10", archive, "--expected_images=101", *options)


def refused(capsys, archive, *words, options=()):
    """Runs and checks that one line says these words, and that nothing was left behind."""
    before = sorted(archive.parent.iterdir())
    assert prepare(archive, *options) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    for word in (str(archive), *words):
        assert word in error
    assert sorted(archive.parent.iterdir()) == before


@pytest.mark.parametrize("workers", [1, 3])
def test_images(tmp_path, archive, workers, capsys):
    assert prepare(archive, f"--workers={workers}", f"--output={tmp_path}/STL10/stl10.npy") == 0
    source = open_source("stl10", tmp_path, "npy", expected_images=101)
    assert np.array_equal(source.read(np.arange(101)), by_opencv(48))
    assert [path.name for path in (tmp_path / "STL10").iterdir()] == ["stl10.npy"]
    output = capsys.readouterr()
    assert "--set expected_images=101" in output.out
    assert "image/s" in output.err


def test_advice(archive, capsys, unpacking):
    assert prepare(archive) == 0
    assert ("[prepare]" in capsys.readouterr().err) == (unpacking == "zlib")


@pytest.mark.parametrize("size", [32, 33, 96])
def test_other_sizes(tmp_path, archive, size):
    assert prepare(archive, f"--size={size}") == 0
    assert np.array_equal(np.load(tmp_path / "stl10.npy"), by_opencv(size))


def test_several_gzip_streams_and_padding(tmp_path, archive):
    data = gzip.decompress(archive.read_bytes())
    parts = [data[:5], data[5:100_000], data[100_000:]]
    archive.write_bytes(b"".join(map(gzip.compress, parts)) + bytes(1000))
    assert prepare(archive) == 0
    assert np.array_equal(np.load(tmp_path / "stl10.npy"), by_opencv(48))


def test_streams_of_one_byte_take_no_more_memory(tmp_path):
    """Each of them is a piece, of which a list would take a hundred times as much."""
    path = tmp_path / "many.gz"
    path.write_bytes(gzip.compress(b"x") * 200_000)
    with gzip_reader.GzipReader(path) as archive:
        tracemalloc.start()
        try:
            assert archive.read(200_000) == b"x" * 200_000
            assert tracemalloc.get_traced_memory()[1] < 2**21
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("before", range(0, 60, 7))
@pytest.mark.parametrize("flags", [2, 4 + 8, 8 + 16, 8 + 2])
def test_headers_that_two_pieces_share(tmp_path, before, flags):
    """Of a second stream, its header beginning so many bytes before the end of the first piece."""
    first = np.random.default_rng(0).bytes(2**17)  # so that it is stored as it is, nearly
    packed = gzip.compress(first)
    while len(packed) > 2**17 - before:
        first = first[: len(first) - (len(packed) - 2**17 + before)]
        packed = gzip.compress(first)
    fields = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6)
    fields += b"\5\0extra" if flags & 4 else b""
    fields += b"name\0" if flags & 8 else b""
    fields += b"a comment\0" if flags & 16 else b""
    fields += (zlib.crc32(fields) & 0xFFFF).to_bytes(2, "little") if flags & 2 else b""
    path = tmp_path / "two.gz"
    path.write_bytes(packed + fields + gzip.compress(b"second" * 1000)[10:])
    with gzip_reader.GzipReader(path) as archive:
        assert archive.read(len(first) + 6000) == first + b"second" * 1000
        archive.drain()


def test_wrong_count(archive, capsys):
    refused(capsys, archive, "found 101 images, expected 102", "--expected_images=101",
            options=["--expected_images=102"])  # fmt: skip
    assert run("STL10", archive) == 2
    assert "expected 100,000" in capsys.readouterr().err


def test_torn_image(archive, capsys):
    with tarfile.open(archive, "w:gz") as tar:
        add_member(tar, STL10_MEMBER, PLANES.tobytes()[:-1])
    refused(capsys, archive, STL10_MEMBER, "not a multiple of 27,648")


def test_no_such_member(archive, capsys):
    with tarfile.open(archive, "w:gz") as tar:
        add_member(tar, "stl10_binary/train_X.bin", PLANES.tobytes())
    refused(capsys, archive, f"has no {STL10_MEMBER}")


def test_duplicate(archive, capsys):
    with tarfile.open(archive, "w:gz") as tar:
        add_member(tar, STL10_MEMBER, PLANES.tobytes())
        add_member(tar, STL10_MEMBER, PLANES.tobytes())
    refused(capsys, archive, f"{STL10_MEMBER} occurs twice")


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "stl10_binary/../../evil", "a\\b"])
def test_unsafe_names(archive, capsys, name):
    with tarfile.open(archive, "w:gz") as tar:
        add_member(tar, name, b"x")
        add_member(tar, STL10_MEMBER, PLANES.tobytes())
    refused(capsys, archive, repr(name), "not safe")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices(archive, capsys, kind):
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo(STL10_MEMBER)
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    refused(capsys, archive, f"{STL10_MEMBER} is not an ordinary file")


@pytest.mark.parametrize("kept", [0, 5, 12, 1000, 0.5, -9, -1])
def test_truncated(archive, capsys, kept):
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * kept) if kept == 0.5 else kept])
    refused(capsys, archive, "truncated" if kept != 0 else "damaged")


@pytest.mark.parametrize("position", [0.3, 0.9])
def test_flipped_bits(archive, capsys, position):
    data = bytearray(archive.read_bytes())
    data[int(position * len(data))] ^= 0x55
    archive.write_bytes(data)
    refused(capsys, archive, STL10_MEMBER, "damaged")


@pytest.mark.parametrize("place", [-8, -1])
def test_wrong_checksum_or_length(archive, capsys, unpacking, place):
    words = {"zlib": {-8: "incorrect data check", -1: "incorrect length check"}[place]}
    data = bytearray(archive.read_bytes())
    data[place] ^= 1
    archive.write_bytes(data)
    refused(capsys, archive, STL10_MEMBER, words.get(unpacking, "Incorrect checksum found"))


def test_not_an_archive(archive, capsys, unpacking):
    words = {"zlib": "incorrect header check", "isal": "Invalid gzip/zlib wrapper found"}
    archive.write_bytes(b"<html>not found</html>")
    refused(capsys, archive, "damaged", words[unpacking])
    archive.write_bytes(gzip.compress(b"<html>not found</html>" * 100))
    refused(capsys, archive, "damaged")


def test_damaged_header_after_the_images(archive, capsys):
    """Which tarfile would take for the archive's end."""
    data = bytearray(gzip.decompress(archive.read_bytes()))
    data[data.index(b"stl10_binary/class_names.txt") + 5] ^= 1
    archive.write_bytes(gzip.compress(bytes(data)))
    refused(capsys, archive, STL10_MEMBER, "damaged header")


def test_header_that_claims_a_terabyte(archive, capsys):
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**40
    file = io.BytesIO(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    archive.write_bytes(gzip.compress(file.getvalue()))
    refused(capsys, archive, "a header of 1,099,511,627,776 bytes")


def test_a_bomb_stays_small(archive, capsys):
    """Zeros without end, packed to a thousandth."""
    header = tarfile.TarInfo("stl10_binary/train_X.bin")
    header.size = 2**36
    zeros = gzip.compress(bytes(2**26), 9)[10:-8]
    stored = struct.pack("<BHH", 0, 512, 512 ^ 0xFFFF) + header.tobuf(tarfile.GNU_FORMAT)
    with archive.open("wb") as file:
        file.write(b"\x1f\x8b\x08" + bytes(7) + stored + zeros)
    refused(capsys, archive, "damaged")


def test_old_output_stays_until_the_new_one_is_there(tmp_path, archive, capsys):
    output = tmp_path / "stl10.npy"
    output.write_bytes(b"old")
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 2])
    refused(capsys, archive, "truncated")
    assert output.read_bytes() == b"old"
    archive.write_bytes(data)
    assert prepare(archive) == 0
    assert np.load(output).shape == (101, 48, 48, 3)


@pytest.mark.parametrize("name", ["data", "new/"])
def test_a_folder_as_output_is_refused_before_any_work(tmp_path, archive, capsys, name):
    (tmp_path / "data").mkdir()
    assert prepare(archive, f"--output={tmp_path}/{name}") == 2
    error = capsys.readouterr().err
    for words in ("--output", "is a folder", f"--output={tmp_path / name}/stl10.npy"):
        assert words in error
    assert "image/s" not in error
    assert sorted(os.listdir(tmp_path)) == sorted(["data", archive.name])


def test_options(tmp_path, archive, capsys):
    for option, words in [
        ("--no_such", "no_such"), ("--workers=0", "workers"), ("--size=many", "size"),
        ("--expected_images=0", "expected_images"), ("stray", "'stray'"),
        ("--on_error=skip", "on_error"),
    ]:  # fmt: skip
        assert prepare(archive, option) == 2
        assert words in capsys.readouterr().err
    assert run("STL10", tmp_path / "none.tar.gz") == 2
    assert f"{tmp_path}/none.tar.gz not found" in capsys.readouterr().err
    assert prepare(archive, "--help") == 0
    assert "expected_images" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [archive.name]


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (5, 5), (6, 6), (7, 6), (256, 6)])
def test_workers_are_bounded_by_default(archive, capsys, monkeypatch, cores, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert prepare(archive, "--help") == 0
    assert f"(default: '{workers}')" in capsys.readouterr().out.partition("--workers")[2][:300]
