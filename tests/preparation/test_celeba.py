"""CelebA's preparation, on archives in the real format."""

import contextlib
import os
import stat
import struct
import tracemalloc
import warnings
import zipfile

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import open_source
from common.parsers.archives import DamagedError
from common.parsers.decoding import DECODER_ERRORS
from common.preparation.celeba import decode_celeba
from tests.preparation.archives import celeba_name, encode, photograph, write_celeba
from tests.preparation.scripts import load, run

COUNT = 70  # more than two tasks


def face(number: int, **options) -> bytes:
    mode = options.pop("mode", "RGB")
    return encode(photograph(number, 218, 178).convert(mode), quality=90, **options)


FACES = {celeba_name(number): face(number) for number in range(1, COUNT + 1)}
FACES[celeba_name(3)] = face(3, mode="L")
FACES[celeba_name(5)] = face(5, orientation=3)


def by_opencv(data: bytes, size: int = 64) -> np.ndarray:
    """What the original's preparation makes of an image (specification, section 5)."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    crop = pixels[45:173, 25:153]
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR)[..., ::-1]


EXPECTED = np.stack([by_opencv(FACES[name]) for name in sorted(FACES)])


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_decoding_stops_early_without_a_trace(data):
    """Whatever the JPEG's colours, sampling, coding and orientation."""
    height, width = data.draw(st.sampled_from([(218, 178)] * 4 + [(178, 218), (218, 179)]))
    mode = data.draw(st.sampled_from(["RGB", "RGB", "RGB", "L", "CMYK"]))
    options = {"quality": data.draw(st.integers(1, 100))}
    if mode == "RGB":
        options["subsampling"] = data.draw(st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]))
    options["progressive"] = data.draw(st.booleans())
    options["restart_marker_rows"] = data.draw(st.sampled_from([0, 1]))
    options["comment"] = data.draw(st.binary(max_size=9))
    orientation = data.draw(st.sampled_from([None, None, 1, 2, 3, 4]))
    image = photograph(data.draw(st.integers(0, 99)), height, width, grain=30).convert(mode)
    stored = encode(image, orientation=orientation, **options)
    size = data.draw(st.sampled_from([64, 64, 50]))
    if (height, width) == (218, 178):
        assert np.array_equal(decode_celeba(stored, size), by_opencv(stored, size))
        with pytest.raises(OSError, match=r"(?i)truncated"):
            decode_celeba(stored[: len(stored) // 2])
    else:
        with pytest.raises(ValueError, match=f"an image of {width}x{height}, not 178x218"):
            decode_celeba(stored, size)


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 700), junk=st.binary(min_size=1, max_size=4))
def test_damaged_headers(position, junk):
    data = bytearray(FACES[celeba_name(1)])
    data[position : position + len(junk)] = junk
    with contextlib.suppress(*DECODER_ERRORS):
        assert decode_celeba(bytes(data)).shape == (64, 64, 3)
    with contextlib.suppress(*DECODER_ERRORS):
        assert decode_celeba(bytes(data[:position])).shape == (64, 64, 3)


@pytest.fixture
def archive(tmp_path):
    return tmp_path / "img_align_celeba.zip"


def prepare(archive, *options, count=COUNT):
    return run("CelebA", archive, f"--expected_images={count}", *options)


def refused(capsys, archive, *words, options=(), count=COUNT, left=()):
    assert prepare(archive, *options, count=count) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    for word in words:
        assert word in error
    assert sorted(os.listdir(archive.parent)) == sorted([archive.name, *left])


def test_images(tmp_path, archive):
    write_celeba(archive, dict(reversed(FACES.items())))  # in another order than by number
    assert prepare(archive, "--workers=2", f"--output={tmp_path}/CelebA/celeba.npy") == 0
    source = open_source("celeba", tmp_path, "npy", expected_images=COUNT)
    assert np.array_equal(source.read(np.arange(COUNT)), EXPECTED)
    assert os.listdir(tmp_path / "CelebA") == ["celeba.npy"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_other_size(tmp_path, archive, method):
    with zipfile.ZipFile(archive, "w", method) as file:
        file.writestr("img_align_celeba/", b"")
        for name in sorted(FACES)[:4]:
            file.writestr(name, FACES[name])
    assert prepare(archive, "--size=50", count=4) == 0
    expected = np.stack([by_opencv(FACES[name], 50) for name in sorted(FACES)[:4]])
    assert np.array_equal(np.load(tmp_path / "celeba.npy"), expected)


def test_wrong_count(archive, capsys):
    write_celeba(archive, FACES)
    refused(capsys, archive, str(archive), "found 70 images, expected 71",
            "--expected_images=70", count=71)  # fmt: skip
    assert run("CelebA", archive) == 2
    assert "expected 202,599" in capsys.readouterr().err


def damaged_member(archive, position):
    """Spoils the packed bytes of one member."""
    with zipfile.ZipFile(archive) as file:
        info = file.getinfo(celeba_name(40))
    data = bytearray(archive.read_bytes())
    data[info.header_offset + position] ^= 0xFF
    archive.write_bytes(data)


PNG_TOO_LARGE = encode(photograph(0, 4, 4).resize((10_000, 10_000)).convert("1"), "PNG")

BAD_FILES = {
    "truncated": (face(40)[:-900], "truncated"),
    "empty": (b"", "cannot identify"),
    "text": (b"<html>" * 99, "cannot identify"),
    "size": (encode(photograph(40, 178, 218)), "an image of 218x178, not 178x218"),
    "gif": (encode(photograph(40, 218, 178), "GIF"), "cannot identify"),
    "bomb": (PNG_TOO_LARGE, "an image of 10000x10000, not 178x218"),
}


@pytest.mark.parametrize("fault", [*BAD_FILES, "crc", "header"])
def test_damaged_image(tmp_path, archive, capsys, fault):
    data, words = BAD_FILES.get(fault, (FACES[celeba_name(40)], "DamagedError"))
    write_celeba(archive, {**FACES, celeba_name(40): data})
    if fault in ("crc", "header"):
        damaged_member(archive, 1000 if fault == "crc" else 1)
    refused(capsys, archive, str(archive), "img_align_celeba/000040.jpg", words, "--on_error=skip")
    assert prepare(archive, "--on_error=skip") == 0
    assert "1 images were skipped" in capsys.readouterr().err
    assert np.array_equal(np.load(tmp_path / "celeba.npy"), np.delete(EXPECTED, 39, axis=0))
    [line] = (tmp_path / "celeba.npy.skipped.txt").read_text().splitlines()
    assert line.startswith("img_align_celeba/000040.jpg\t")
    assert words in line


def test_workers_end_before_the_file_is_given_up(archive, monkeypatch):
    """One that writes later might do so in the file of the next start, which has its name."""
    script, ended = load("CelebA"), []

    def watch(name):
        opens = getattr(script, name)

        @contextlib.contextmanager
        def watched(*arguments):
            with opens(*arguments) as value:
                yield value
            ended.append(name)

        monkeypatch.setattr(script, name, watched)

    write_celeba(archive, FACES)
    watch("worker_processes")
    watch("write_array")
    assert prepare(archive) == 0
    assert ended == ["worker_processes", "write_array"]


def test_an_old_list_goes(tmp_path, archive):
    write_celeba(archive, {**FACES, celeba_name(40): b""})
    assert prepare(archive, "--on_error=skip") == 0
    write_celeba(archive, FACES)
    assert prepare(archive, "--on_error=skip") == 0
    assert sorted(os.listdir(tmp_path)) == ["celeba.npy", archive.name]
    assert np.array_equal(np.load(tmp_path / "celeba.npy"), EXPECTED)


def test_nothing_but_damaged_images(archive, capsys):
    write_celeba(archive, {celeba_name(1): b"x"})
    refused(capsys, archive, "none of the 1 images", options=["--on_error=skip"], count=1,
            left=["celeba.npy.skipped.txt"])  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../img_align_celeba/000001.jpg", "not safe"),
        ("img_align_celeba/../../x.jpg", "not safe"),
        ("/img_align_celeba/000001.jpg", "not safe"),
        ("img_align_celeba/000001.jpg\n", "not safe"),
        ("img_align_celeba/1.jpg", "is not one of"),
        ("img_align_celeba/x/000001.jpg", "is not one of"),
        ("img_align_celeba/\u0661\u0661\u0661\u0661\u0661\u0661.jpg", "is not one of"),
    ],
)
def test_names(archive, capsys, name, words):
    write_celeba(archive, {name: b"x"})
    refused(capsys, archive, words, repr(name)[1:-1], count=1)
    refused(capsys, archive, words, options=["--on_error=skip"], count=1)


def test_duplicate(archive, capsys):
    with warnings.catch_warnings(), zipfile.ZipFile(archive, "w") as file:
        warnings.simplefilter("ignore")
        for _ in range(2):
            file.writestr(celeba_name(1), FACES[celeba_name(1)])
    refused(capsys, archive, "000001.jpg occurs twice", count=2)


@pytest.mark.parametrize("kept", [0, 100, 0.5, -1])
def test_truncated(archive, capsys, kept):
    write_celeba(archive, FACES)
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * kept) if kept == 0.5 else kept])
    refused(capsys, archive, str(archive), "not a readable zip archive")


@pytest.mark.parametrize(("offset", "value"), [(8, 1), (10, 99)])
def test_unknown_packing(archive, capsys, offset, value):
    """The flag of encryption, and a method that nobody knows."""
    write_celeba(archive, {celeba_name(1): b"x"})
    data = bytearray(archive.read_bytes())
    data[data.rindex(b"PK\x01\x02") + offset] = value
    archive.write_bytes(data)
    refused(capsys, archive, "000001.jpg is encrypted or packed in an unknown way", count=1)


def claimed_size(archive, size):
    """Lets the central directory claim another unpacked size of every member."""
    data = bytearray(archive.read_bytes())
    start = 0
    while (start := data.find(b"PK\x01\x02", start)) >= 0:
        struct.pack_into("<I", data, start + 24, size)
        start += 4
    archive.write_bytes(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("size", "words"), [(1000, "wrong length"), (2**32 - 2, "4,294,967,294 bytes, more than")]
)
def test_zip_bombs(archive, capsys, method, size, words):
    """128 MB packed to 128 kB: no more of it is unpacked than was announced."""
    with zipfile.ZipFile(archive, "w", method) as file:
        file.writestr(celeba_name(1), bytes(2**27 if method else 2**20))
    claimed_size(archive, size)
    refused(capsys, archive, "000001.jpg", words, count=1)
    [member] = load("CelebA")._list_members(archive)
    tracemalloc.start()
    with archive.open("rb") as file, pytest.raises(DamagedError):
        member.read(file)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable(archive, capsys):
    write_celeba(archive, FACES)
    archive.chmod(0)
    refused(capsys, archive, "Permission denied")
    archive.chmod(stat.S_IRUSR)


def test_a_member_without_a_name_is_damage(tmp_path, capsys):
    path = tmp_path / "img_align_celeba.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"")
        archive.infolist()[0].filename = ""  # in the directory, which is written last
    assert run("CelebA", path) == 2
    assert "not a readable zip archive" in capsys.readouterr().err
