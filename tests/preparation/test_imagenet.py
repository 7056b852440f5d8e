"""ImageNet's preparation, on archives in the real format."""

import functools
import io
import os
import tarfile

import cv2
import numpy as np
import pytest
from tqdm import tqdm

from common.data import open_source
from common.preparation import program
from tests.data.archives import add_member
from tests.preparation.archives import encode, photograph, tar_bytes, write_imagenet
from tests.preparation.scripts import run

SIZES = [(200, 300), (331, 257), (128, 128), (256, 256), (90, 400), (500, 375), (1, 1)]


def image(number: int, mode: str = "RGB", format_: str = "JPEG", **options) -> bytes:
    height, width = SIZES[number % len(SIZES)]
    return encode(photograph(number, height, width).convert(mode), format_, **options)


CLASSES = {
    "n01440764": {
        "n01440764/n01440764_10026.JPEG": image(0),
        "n01440764/n01440764_9.JPEG": image(1, mode="L"),
        "n01440764/n01440764_3.JPEG": image(2, mode="CMYK"),
        "n01440764/n01440764_4.JPEG": image(3, orientation=6),
    },
    "n02105855": {
        "n02105855_2933.JPEG": image(5, format_="PNG"),  # its genuine name
        **{f"n02105855_{n}.JPEG": image(n, orientation=n % 9) for n in range(7, 50)},
    },
}
COUNT = sum(map(len, CLASSES.values()))


def by_opencv(data: bytes, size: int = 128) -> np.ndarray:
    """What the original's preparation makes of an image (specification, section 5)."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    height, width, _ = pixels.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[top : top + side, left : left + side]
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_LINEAR)[..., ::-1]


def expected_files(size: int = 128) -> dict[str, np.ndarray]:
    return {
        f"{folder}/{name.rpartition('/')[2].removesuffix('.JPEG')}.npy": by_opencv(data, size)
        for folder, files in CLASSES.items()
        for name, data in files.items()
    }


def check_output(folder, expected, size=128):
    found = {str(path.relative_to(folder)): np.load(path) for path in folder.glob("*/*")}
    assert sorted(found) == sorted(expected)
    sides = {f"{folder}/{name.rpartition('/')[2][:-5]}.npy": min(
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2])
        for folder, files in CLASSES.items() for name, data in files.items()}  # fmt: skip
    for name, pixels in expected.items():
        tolerance = 1 if sides[name] < size else 0  # OpenCV enlarges by other rounding
        assert np.abs(found[name].astype(int) - pixels).max() <= tolerance, name


@pytest.fixture
def archive(tmp_path):
    return write_imagenet(tmp_path / "ILSVRC2012_img_train.tar", CLASSES)


def prepare(archive, *options, images=COUNT, classes=2):
    expected = [f"--expected_images={images}", f"--expected_classes={classes}"]
    return run("ImageNet", archive, *expected, *options)


def refused(capsys, archive, *words, **arguments):
    assert prepare(archive, *arguments.pop("options", ()), **arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    for word in words:
        assert word in error
    assert not (archive.parent / "ILSVRC2012").exists()


def test_images(tmp_path, archive, capsys):
    assert prepare(archive, "--workers=2", f"--output={tmp_path}/imagenet/ILSVRC2012") == 0
    options = f"to train on them: --set expected_images={COUNT} --set expected_classes=2\n"
    assert options in capsys.readouterr().out
    check_output(tmp_path / "imagenet" / "ILSVRC2012", expected_files())
    assert os.listdir(tmp_path / "imagenet") == ["ILSVRC2012"]
    source = open_source("imagenet", tmp_path, "npy", COUNT, 2)
    expected = expected_files()
    first = source.read(np.array([0]))[0]
    assert np.array_equal(first, expected["n01440764/n01440764_10026.npy"])


def test_images_are_counted_without_a_progress_bar(tmp_path, archive, monkeypatch):
    """In two goes, so that those made before are counted, too; `TQDM_DISABLE=1` does the same."""
    monkeypatch.setattr(program, "tqdm", functools.partial(tqdm, disable=True))
    broken = {**CLASSES["n02105855"], "n02105855_41.JPEG": b"x"}
    write_imagenet(archive, {**CLASSES, "n02105855": broken})
    assert prepare(archive) == 2
    write_imagenet(archive, CLASSES)
    assert prepare(archive) == 0
    check_output(tmp_path / "ILSVRC2012", expected_files())


def test_other_size(tmp_path, archive):
    assert prepare(archive, "--size=33") == 0
    check_output(tmp_path / "ILSVRC2012", expected_files(33), 33)


def test_goes_on_where_it_stopped(tmp_path, archive, capsys):
    broken = {**CLASSES["n02105855"], "n02105855_41.JPEG": b"x"}
    write_imagenet(archive, {**CLASSES, "n02105855": broken})
    refused(capsys, archive, str(archive), "n02105855.tar: n02105855_41.JPEG", "--on_error=skip")
    partial = tmp_path / "ILSVRC2012.partial"
    finished = sorted(partial.glob("*/*.npy"))
    assert len(finished) > 4
    # Finished files are taken as they are; torn ones are made again.
    marked, torn = finished[0], finished[1]
    marked.write_bytes(marked.read_bytes()[:-1] + b"\x99")
    mark = marked.read_bytes()
    torn.write_bytes(torn.read_bytes()[:-1])
    write_imagenet(archive, CLASSES)
    assert prepare(archive) == 0
    assert not partial.exists()
    output = tmp_path / "ILSVRC2012"
    assert (output / marked.relative_to(partial)).read_bytes() == mark
    (output / marked.relative_to(partial)).unlink()
    expected = expected_files()
    del expected[str(marked.relative_to(partial))]
    check_output(output, expected)
    # What is there is not overwritten.
    assert prepare(archive) == 2
    assert f"{output} is there already" in capsys.readouterr().err


def test_files_of_another_archive(tmp_path, archive, capsys):
    partial = tmp_path / "ILSVRC2012.partial"
    (partial / "n09999999").mkdir(parents=True)
    refused(capsys, archive, f"{partial}/n09999999.npy"[:-4], "not of this archive", str(partial))
    (partial / "n09999999").rmdir()
    (partial / "n01440764").mkdir()
    size = 128 + 3 * 128 * 128
    (partial / "n01440764" / "n01440764_1.npy").write_bytes(bytes(size))
    refused(capsys, archive, "n01440764/n01440764_1.npy", "not of this archive")


def test_skip(tmp_path, archive, capsys):
    broken = {**CLASSES["n02105855"], "n02105855_47.JPEG": image(47)[:-600]}
    write_imagenet(archive, {**CLASSES, "n02105855": broken})
    assert prepare(archive, "--on_error=skip") == 0
    assert "1 images were skipped" in capsys.readouterr().err
    expected = expected_files()
    del expected["n02105855/n02105855_47.npy"]
    check_output(tmp_path / "ILSVRC2012", expected)
    [line] = (tmp_path / "ILSVRC2012.skipped.txt").read_text().splitlines()
    name, reason = line.split("\t")
    assert name == "n02105855.tar: n02105855_47.JPEG"
    assert "truncated" in reason


def test_a_class_that_was_skipped_as_a_whole(tmp_path, archive, capsys):
    """Training would refuse its empty folder."""
    write_imagenet(archive, {**CLASSES, "n1": {"n1_1.JPEG": b"no image"}})
    words = ["n1.tar", "none of its images", "without that class"]
    options = {"options": ["--on_error=skip"], "images": COUNT + 1, "classes": 3}
    refused(capsys, archive, *words, **options)
    reasons = (tmp_path / "ILSVRC2012.skipped.txt").read_text()
    assert reasons == "n1.tar: n1_1.JPEG\tUnidentifiedImageError: cannot identify image file\n"


@pytest.mark.parametrize(
    ("images", "classes", "words"),
    [
        (COUNT, 3, "found 2 classes, expected 3; for a subset say --expected_classes=2"),
        (COUNT + 1, 2, f"found {COUNT} images, expected {COUNT + 1}"),
        (COUNT - 1, 2, f"more than the expected {COUNT - 1} images"),
    ],
)
def test_wrong_counts(archive, capsys, images, classes, words):
    refused(capsys, archive, str(archive), words, images=images, classes=classes)


def test_genuine_counts_by_default(archive, capsys):
    assert run("ImageNet", archive) == 2
    assert "expected 1,000" in capsys.readouterr().err
    assert run("ImageNet", archive, "--expected_classes=2") == 2
    assert "expected 1,281,167" in capsys.readouterr().err


JPEG = image(3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../n1_1.JPEG", "not safe"),
        ("n1/../../n1_1.JPEG", "not safe"),
        ("/n1_1.JPEG", "not safe"),
        ("n2/n1_1.JPEG", "n2/n1_1.JPEG is not <image>.JPEG of that class"),
        ("n1/x/n1_1.JPEG", "is not <image>.JPEG"),
        (".n1_1.JPEG", "is not <image>.JPEG"),
        ("n1_1.txt", "is not <image>.JPEG"),
    ],
)
def test_names(archive, capsys, name, words):
    write_imagenet(archive, {"n1": {name: JPEG}})
    refused(capsys, archive, "n1.tar: ", words, images=1, classes=1)


@pytest.mark.parametrize(
    ("name", "words"),
    [("../n1.tar", "not safe"), ("/n1.tar", "not safe"), ("n1.txt", "is not <class>.tar"),
     ("a/n1.tar", "is not <class>.tar"), ("...tar", "is not <class>.tar")],
)  # fmt: skip
def test_class_names(archive, capsys, name, words):
    with tarfile.open(archive, "w") as tar:
        add_member(tar, name, tar_bytes([("n1_1.JPEG", JPEG)]))
    refused(capsys, archive, str(archive), words, images=1, classes=1)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.BLKTYPE])
@pytest.mark.parametrize("outer", [True, False])
def test_links_and_devices(archive, capsys, kind, outer):
    member = tarfile.TarInfo("n1.tar" if outer else "n1_1.JPEG")
    member.type, member.linkname = kind, "/etc/passwd"
    file = io.BytesIO()
    with tarfile.open(archive if outer else None, "w", fileobj=None if outer else file) as tar:
        tar.addfile(member)
    if not outer:
        with tarfile.open(archive, "w") as tar:
            add_member(tar, "n1.tar", file.getvalue())
    refused(capsys, archive, f"{member.name} is not an ordinary file", images=1, classes=1)


def test_duplicates(archive, capsys):
    inner = tar_bytes([("n1_1.JPEG", JPEG), ("n1/n1_1.JPEG", JPEG)])
    with tarfile.open(archive, "w") as tar:
        add_member(tar, "n1.tar", inner)
    refused(capsys, archive, "n1.tar: n1/n1_1.JPEG occurs twice", images=2, classes=1)
    with tarfile.open(archive, "w") as tar:
        add_member(tar, "n1.tar", inner)
        add_member(tar, "./n1.tar", inner)
    refused(capsys, archive, "./n1.tar occurs twice", images=2, classes=2)


def test_empty_class(archive, capsys):
    write_imagenet(archive, {"n1": {}})
    refused(capsys, archive, "n1.tar has no images", images=1, classes=1)


@pytest.mark.parametrize("kept", [0, 100, 0.3, 0.9, -11_000])
def test_truncated(archive, capsys, kept):
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * kept) if isinstance(kept, float) else kept])
    refused(capsys, archive, str(archive), "damaged")


def test_truncated_class(archive, capsys):
    inner = tar_bytes(CLASSES["n02105855"].items())
    with tarfile.open(archive, "w") as tar:
        add_member(tar, "n02105855.tar", inner[: len(inner) // 2])
    refused(capsys, archive, "n02105855.tar", "n02105855_", "damaged", classes=1)


def test_damaged_header(archive, capsys):
    """Which tarfile would take for the archive's end."""
    data = bytearray(archive.read_bytes())
    data[data.index(b"n02105855_20.JPEG") + 3] ^= 1
    archive.write_bytes(data)
    refused(capsys, archive, "n02105855.tar: damaged at or after n02105855_19.JPEG")


def test_compressed_archive(archive, capsys):
    with tarfile.open(archive, "w:gz") as tar:
        add_member(tar, "n1.tar", tar_bytes([("n1_1.JPEG", JPEG)]))
    refused(capsys, archive, "damaged", classes=1)


def test_bomb(archive, capsys):
    """An image of 100 million pixels in some kilobytes."""
    bomb = encode(photograph(0, 4, 4).resize((10_000, 10_000)).convert("1"), "PNG")
    write_imagenet(archive, {"n1": {"n1_1.JPEG": bomb}})
    refused(capsys, archive, "n1_1.JPEG", "10000x10000, more than", images=1, classes=1)


def test_large_member(archive, capsys):
    with archive.open("wb") as file:  # sparse
        inner = tarfile.TarInfo("n1_1.JPEG")
        inner.size = 2**27
        outer = tarfile.TarInfo("n1.tar")
        outer.size = inner.size + 3 * 512
        file.write(outer.tobuf(tarfile.GNU_FORMAT) + inner.tobuf(tarfile.GNU_FORMAT))
        file.truncate(file.tell() + inner.size + 4 * 512)
    refused(capsys, archive, "n1_1.JPEG", "134,217,728 bytes, more than", images=1, classes=1)
