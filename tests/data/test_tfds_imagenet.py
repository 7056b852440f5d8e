"""ImageNet's TFDS route, on a tiny archive that TFDS's own builder prepares."""

import io
import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import ExifTags, Image

from common.data import open_source, tfds_route
from common.errors import UserError
from tests.data.archives import add_member
from tests.preparation.scripts import run

pytestmark = pytest.mark.usefixtures("no_network")

NAME = "imagenet2012"
SIZES = [(200, 300), (331, 257), (128, 128), (256, 256), (90, 400), (500, 375)]  # (height, width)


def jpeg(number: int, mode: str = "RGB", orientation: int | None = None) -> bytes:
    """A smooth JPEG."""
    noise = np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    height, width = SIZES[number % len(SIZES)]
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    if orientation:
        exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    image.convert(mode).save(file, "JPEG", exif=exif)
    return file.getvalue()


def png() -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(jpeg(1))).save(file, "PNG")
    return file.getvalue()


FILES = {
    "n01440764_1.JPEG": jpeg(0),
    "n01440764_2.JPEG": jpeg(1),
    "n01440764_3.JPEG": jpeg(2, "L"),
    "n01440764_4.JPEG": jpeg(3, orientation=6),
    "n01443537_1.JPEG": jpeg(4),
    "n01443537_2.JPEG": jpeg(5, orientation=3),
    "n01443537_3.JPEG": jpeg(11, orientation=8),
    "n01443537_4.JPEG": jpeg(7, "CMYK"),  # not among those that TFDS converts
    "n02105855_2933.JPEG": png(),  # its genuine name; TFDS makes a JPEG of it
}

TOLERANCES = {
    "n01443537_1.JPEG": 1,  # enlarged, which OpenCV does by other rounding
    "n02105855_2933.JPEG": 255,  # compressed anew by TFDS
}


def by_opencv(data: bytes) -> np.ndarray:
    """What the original's preparation makes of an image (specification, section 5)."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    height, width, _ = pixels.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[top : top + side, left : left + side]
    return cv2.resize(square, (128, 128), interpolation=cv2.INTER_LINEAR)[..., ::-1]


def write_archives(folder: Path, files: dict[str, bytes]) -> None:
    """Writes the archive of class archives for training, and an empty one for validation."""
    folder.mkdir(parents=True)
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as archive:
        for synset in sorted({name.partition("_")[0] for name in files}):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as members:
                for name, data in files.items():
                    if name.startswith(synset):
                        add_member(members, name, data)
            add_member(archive, f"{synset}.tar", inner.getvalue())
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as archive:
        add_member(archive, "ILSVRC2012_val_00000001.JPEG", jpeg(0))


@pytest.fixture
def tfds_dir(tmp_path, monkeypatch):
    folder = tmp_path / "tfds"
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    return folder


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives") / "manual"
    write_archives(folder, FILES)
    return folder


@pytest.fixture
def with_archives(tfds_dir, archives):
    shutil.copytree(archives, tfds_dir / "downloads" / "manual")


@pytest.mark.usefixtures("with_archives")
def test_images(tmp_path, tfds_dir):
    source = open_source("imagenet", tmp_path, "auto", 9, 3)  # no folder, so from TFDS
    found = source.read(np.arange(9))
    examples = tfds.builder(NAME, data_dir=tfds_dir).as_dataset(
        split="train",
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    names = [example["file_name"].decode() for example in tfds.as_numpy(examples)]
    assert sorted(names) == sorted(FILES)
    for name, pixels in zip(names, found, strict=True):
        difference = np.abs(pixels.astype(int) - by_opencv(FILES[name]))
        assert difference.max() <= TOLERANCES.get(name, 0), name
        assert difference.mean() < 5
    archive = tfds_dir / "downloads" / "manual" / "ILSVRC2012_img_train.tar"
    options = ["--expected_images=9", "--expected_classes=3", f"--output={tmp_path}/ILSVRC2012"]
    assert run("ImageNet", archive, *options) == 0
    for name, pixels in zip(names, found, strict=True):
        prepared = np.load(tmp_path / "ILSVRC2012" / name[:9] / name.replace(".JPEG", ".npy"))
        assert np.array_equal(prepared, pixels) == (name != "n02105855_2933.JPEG")
    synsets = ["n01440764", "n01443537", "n02105855"]
    assert source.classes == 3
    assert source.labels.tolist() == [synsets.index(name[:9]) for name in names]
    (tmp_path / "imagenet" / "ILSVRC2012").parent.mkdir(exist_ok=True)
    (tmp_path / "ILSVRC2012").rename(tmp_path / "imagenet" / "ILSVRC2012")
    folder = open_source("imagenet", tmp_path, "npy", 9, 3)
    assert folder.labels.tolist() == [0] * 4 + [1] * 4 + [2]
    size = (tmp_path / "imagenet" / "imagenet.tfds.npy").stat().st_size
    assert source.description == {
        "dataset": "imagenet",
        "route": "tfds",
        "files": {"imagenet/imagenet.tfds.npy": size},
        "images": 9,
        "builder": "imagenet2012:5.1.0",
        "order": "splits joined, files in sequence, not shuffled",
        "classes": 3,
    }


@pytest.mark.usefixtures("with_archives")
def test_counts(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"has 9 images .*expected 1,281,167\. .*images=9"):
        open_source("imagenet", tmp_path, "tfds")
    words = "found 9 images in 3 classes, expected 9 in 1,000.*--set expected_classes=3"
    with pytest.raises(UserError, match=words):
        open_source("imagenet", tmp_path, "tfds", 9)
    # What was converted is not lost by that.
    monkeypatch.setattr(tfds_route, "_convert", lambda *_: pytest.fail("converted twice"))
    assert len(open_source("imagenet", tmp_path, "tfds", 9, 3)) == 9


@pytest.mark.usefixtures("with_archives")
def test_sidecar_without_classes_is_stale(tmp_path):
    first = open_source("imagenet", tmp_path, "tfds", 9, 3)
    sidecar = tmp_path / "imagenet" / "imagenet.tfds.npy.json"
    text = sidecar.read_text()
    sidecar.write_text(text.replace('"classes"', '"other"'))
    assert open_source("imagenet", tmp_path, "tfds", 9, 3).record == first.record
    assert sidecar.read_text() == text


@pytest.mark.parametrize("folder_is_there", [False, True])
def test_missing_archive(tmp_path, tfds_dir, folder_is_there):
    manual = tfds_dir / "downloads" / "manual"
    if folder_is_there:
        manual.mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        open_source("imagenet", tmp_path)
    for words in (
        f"{manual}/ILSVRC2012_img_train.tar not found",
        "cannot download imagenet2012",
        "ILSVRC2012_img_val.tar",
        "https://image-net.org/download-images",
        "dataset_preprocess/ImageNet/preprocess.py",
    ):
        assert words in str(caught.value)


def gigantic() -> bytes:
    """A PNG of 100 million pixels: Pillow only warns of it."""
    file = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(file, "PNG")
    return file.getvalue()


def enormous() -> bytes:
    """A PNG of 200 million pixels: Pillow refuses it."""
    file = io.BytesIO()
    Image.new("1", (10_000, 20_000)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gigantic(), "10000x10000, more than 89,478,485 pixels"),
        (enormous(), "DecompressionBombError"),
        (jpeg(0)[:-900], "truncated"),
        (b"", "cannot identify"),
        (b"GIF89a" + bytes(99), "cannot identify"),
    ],
)
def test_images_that_are_refused(tmp_path, tfds_dir, data, words):
    files = {f"n01440764_{number}.JPEG": jpeg(number) for number in range(5)}
    write_archives(tfds_dir / "downloads" / "manual", {**files, "n01440764_3.JPEG": data})
    with pytest.raises(UserError, match=rf"imagenet2012 at .* \(image \d, .*{words}") as caught:
        open_source("imagenet", tmp_path, "tfds", 5, 1)
    examples = tfds.builder(NAME, data_dir=tfds_dir).as_dataset(
        split="train", decoders={"image": tfds.decode.SkipDecoding()}
    )
    stored = [example["image"] for example in tfds.as_numpy(examples)]
    assert f"(image {stored.index(data)}, counted from 0)" in str(caught.value)
    assert [path.name for path in (tmp_path / "imagenet").iterdir()] == [".imagenet.tfds.npy.lock"]
