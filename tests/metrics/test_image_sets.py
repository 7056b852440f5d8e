"""Sets of images in files: read as they are, refused when hostile."""

import io
import lzma
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from PIL import EpsImagePlugin, Image

from common.errors import UserError
from common.metrics import image_sets
from common.metrics.frechet import GaussianStatistics
from common.metrics.image_sets import open_files
from common.metrics.statistics_files import write_statistics

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 7, 6, 3), dtype=np.uint8)
NAMES = ["b/2.png", "a.PNG", "c/d/e.png", "b/10.png", "f.bmp"]


def encoded(image, kind="png", mode=None):
    buffer = io.BytesIO()
    image = Image.fromarray(image)
    (image.convert(mode) if mode else image).save(buffer, kind)
    return buffer.getvalue()


def files():
    kinds = {name: "bmp" if name.endswith("bmp") else "png" for name in NAMES}
    return {name: encoded(image, kinds[name]) for name, image in zip(NAMES, IMAGES, strict=True)}


def make_folder(path):
    for name, data in files().items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    (path / "notes.txt").write_text("not an image")
    (path / ".hidden.png").write_bytes(b"not an image")


def make_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/", b"")
        for name, data in {**files(), "notes.txt": b"text"}.items():
            archive.writestr(name, data)


def make_tar(path, members=()):
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, data in {**files(), "notes.txt": b"text", **dict(members)}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)


SORTED = [NAMES.index(name) for name in sorted(NAMES)]
IN_ORDER = list(range(5))


@pytest.mark.parametrize(
    ("name", "make", "order"),
    [
        ("images", make_folder, SORTED),
        ("images.zip", make_zip, SORTED),
        ("images.tar", make_tar, IN_ORDER),
        ("images.tar.gz", make_tar, IN_ORDER),
        ("images.npy", lambda path: np.save(path, IMAGES), IN_ORDER),
        ("images.npz", lambda path: np.savez(path, IMAGES), IN_ORDER),
        ("named.npz", lambda path: np.savez(path, images=IMAGES, labels=np.zeros(5)), IN_ORDER),
    ],
)
def test_every_form_gives_the_same_images(tmp_path, name, make, order):
    path = tmp_path / name
    make(path)
    images = open_files(path)
    assert len(images) == 5
    assert tuple(images.image_shape) == (7, 6, 3)
    np.testing.assert_array_equal(images.read(np.arange(5)), IMAGES[order])
    np.testing.assert_array_equal(images.read(np.array([3, 0])), IMAGES[order][[3, 0]])
    assert images.record["images"] == 5


def test_grey_palette_and_transparent_images_become_rgb(tmp_path):
    for name, mode in [("1", "L"), ("2", "P"), ("3", "RGBA")]:
        (tmp_path / f"{name}.png").write_bytes(encoded(IMAGES[0], mode=mode))
    images = open_files(tmp_path).read(np.arange(3))
    assert images.shape == (3, 7, 6, 3)
    assert (images[0, ..., 0] == images[0, ..., 2]).all()
    np.testing.assert_array_equal(images[2], IMAGES[0])


def test_nothing_is_extracted(tmp_path):
    path = tmp_path / "images.tar"
    make_tar(path, {"../../evil.png": encoded(IMAGES[0])}.items())
    assert len(open_files(path)) == 6
    assert list(tmp_path.iterdir()) == [path]


def damaged_image(path):
    make_folder(path)
    (path / "a.PNG").write_bytes(files()["a.PNG"][:40])


def another_size(path):
    make_folder(path)
    (path / "b" / "2.png").write_bytes(encoded(IMAGES[0][:4]))


def bomb(path):
    path.mkdir()
    header = bytearray(encoded(IMAGES[0]))
    header[16:24] = (2**30).to_bytes(4, "big") * 2
    (path / "bomb.png").write_bytes(header)


def large(path):
    """More than Pillow would warn about, and less than it would refuse."""
    path.mkdir()
    Image.new("1", (13_000, 13_000)).save(path / "large.png")


def postscript(path):
    """What Pillow would have Ghostscript run."""
    path.mkdir()
    text = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    (path / "program.png").write_text(text)


def text_members(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("mu", "sigma"):
            archive.writestr(f"{name}.npy", b"text")


def nameless(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"")
        archive.infolist()[0].filename = ""  # in the directory, which is written last


def huge_shape(path):
    header = io.BytesIO()
    shape = {"descr": "<f8", "fortran_order": False, "shape": (2**70,)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mu.npy", header.getvalue())


def wrapping_shape(path):
    """A product of 2**64 elements is 0 in 64 bits."""
    header = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (2**32, 2**31, 2, 3)}
    np.lib.format.write_array_header_1_0(header, shape)
    path.write_bytes(header.getvalue())


def claimed(path, side, kept=100):
    """A valid header without most of the pixels, in a folder after another image."""
    path.mkdir()
    (path / "1.png").write_bytes(encoded(IMAGES[0]))
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = encoded(IMAGES[0])
    (path / "2.png").write_bytes(data[:8] + chunk + data[33:kept])


def sixteen_bits(path):
    path.mkdir()
    Image.fromarray(np.full([7, 6], 1000, np.uint16)).save(path / "deep.png")


def damaged_xz(path):
    make_tar(path.with_suffix(""))
    data = bytearray(lzma.compress(path.with_suffix("").read_bytes()))
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def false_npz(path, count):
    """Claims to have `count` images, and has one of 6x7."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, 7, 6, 3)}
    with zipfile.ZipFile(path, "w") as archive, archive.open("arr_0.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(IMAGES[0].tobytes())


def no_images(path):
    path.mkdir()
    (path / "notes.txt").write_text("text")


REFUSED = {
    "damaged": (damaged_image, "a.PNG cannot be read"),
    "sizes": (another_size, r"b/2.png has 6x4 pixels and the first one 6x7"),
    "bomb": (bomb, "bomb.png cannot be read"),
    "large": (large, "more than 89,478,485 pixels"),
    "postscript": (postscript, "cannot identify image file"),
    "members.npz": (text_members, "not a readable .npz file"),
    "nameless.zip": (nameless, "not a readable zip archive"),
    "huge.npz": (huge_shape, r"has mu: float64 \[1180591620717411303424\]"),
    "wrapping.npy": (wrapping_shape, "truncated"),
    "bomb.npz": (
        lambda path: np.savez_compressed(path, np.zeros((1000, 256, 256, 3), np.uint8)),
        "unpacks to 196,608,000 bytes, more than 100 times",
    ),
    "other": (lambda path: claimed(path, 1000), "2.png has 1000x1000 pixels and the first one 6x7"),
    "pixels": (lambda path: claimed(path, 10_000), "10000x10000, more than 89,478,485 pixels"),
    "deep": (sixteen_bits, "deep.png cannot be read .*mode I"),
    "damaged.tar.xz": (damaged_xz, "is not a readable tar|cannot be read"),
    "few.npz": (lambda path: false_npz(path, 2), r"254 bytes, expected is uint8 \[2, 7, 6, 3\]"),
    "vast.npz": (lambda path: false_npz(path, 2**40), "unpacks to 138,538,465,099,776 bytes"),
    "none_at_all.npz": (lambda path: np.savez(path, mu=np.zeros(0), sigma=np.eye(0)), r"mu \[0\]"),
    "empty": (no_images, "no images"),
    "none.zip": (lambda path: path.write_bytes(b"PK" + b"x" * 99), "not a readable zip"),
    "none.tar": (lambda path: path.write_bytes(b"x" * 2000), "not a readable tar"),
    "objects.npy": (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "objects.npy"),
    "floats.npy": (lambda path: np.save(path, IMAGES / 255), "float64"),
    "grey.npy": (lambda path: np.save(path, IMAGES[..., 0]), "not images"),
    "objects.npz": (
        lambda path: np.savez(path, np.array([{}], dtype=object), allow_pickle=True), "object"
    ),
    "floats.npz": (lambda path: np.savez(path, IMAGES / 255), r"arr_0: float64 \[5, 7, 6, 3\]"),
    "none.npz": (lambda path: path.write_bytes(b"PK\3\4"), "not a readable"),
    "text.txt": (lambda path: path.write_text("text"), "known are folders"),
    "shapes.npz": (lambda path: np.savez(path, mu=np.zeros(3), sigma=np.eye(2)), r"mu \[3\]"),
    "nan.npz": (lambda path: np.savez(path, mu=np.full(2, np.nan), sigma=np.eye(2)), "finite"),
    "text.npz": (lambda path: np.savez(path, mu=np.array(["a"]), sigma=np.eye(1)), "finite"),
    "skew.npz": (
        lambda path: np.savez(path, mu=np.zeros(2), sigma=[[1, 0.5], [0, 1]]), "symmetric"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_unusable_files_are_refused(tmp_path, name):
    make, message = REFUSED[name]
    make(tmp_path / name)
    with pytest.raises(UserError, match=message):
        read_all(tmp_path / name)


def test_no_other_decoder_sees_a_file(tmp_path, monkeypatch):
    """Pillow would give this to Ghostscript, an interpreter of programs."""
    (tmp_path / "a.png").write_bytes(EPS)
    called = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: called.append(1))
    with pytest.raises(UserError, match=r"a\.png cannot be read"):
        read_all(tmp_path)
    assert not called


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 7\n%%EndComments\n(x) run\n%%EOF\n"


def test_only_the_images_of_an_npz_file_are_unpacked(tmp_path):
    path = tmp_path / "images.npz"
    others = {"labels": np.array([{}]), "zeros": np.zeros(2**26, np.uint8)}
    np.savez_compressed(path, images=IMAGES, **others)
    tracemalloc.start()
    np.testing.assert_array_equal(read_all(path), IMAGES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23


def test_arrays_larger_than_the_memory_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "images.npz"
    np.savez(path, IMAGES)
    small = SimpleNamespace(available=IMAGES.nbytes - 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: small)
    with pytest.raises(UserError, match=r"arr_0, uint8 \[5, 7, 6, 3\], needs 630 bytes"):
        open_files(path)


def read_all(path):
    images = open_files(path)
    return images.read(np.arange(len(images)))


def test_images_are_bounded(tmp_path, monkeypatch):
    make_zip(tmp_path / "images.zip")
    monkeypatch.setattr(image_sets, "MAX_IMAGE_BYTES", 100)
    with pytest.raises(UserError, match="larger than 100 bytes"):
        open_files(tmp_path / "images.zip")


def test_statistics_go_round(tmp_path):
    """As other tools write them, too: float64 mu and sigma and nothing else."""
    path = tmp_path / "statistics.npz"
    written = GaussianStatistics(np.arange(3.0), np.eye(3) + 0.5, 17)
    write_statistics(path, written)
    with np.load(path) as stored:
        np.testing.assert_array_equal(stored["mu"], written.mean)
        np.testing.assert_array_equal(stored["sigma"], written.covariance)
        assert stored["mu"].dtype == stored["sigma"].dtype == np.float64
        np.savez(tmp_path / "theirs.npz", mu=stored["mu"], sigma=stored["sigma"])
    for name, count in [("statistics.npz", 17), ("theirs.npz", 0)]:
        read = open_files(tmp_path / name)
        np.testing.assert_array_equal(read.mean, written.mean)
        np.testing.assert_array_equal(read.covariance, written.covariance)
        assert read.count == count
