"""Makes small archives in the data sets' real formats."""

import io
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import ExifTags, Image, ImageFile

from tests.data.archives import add_member

STL10_MEMBER = "stl10_binary/unlabeled_X.bin"


def photograph(seed: int, height: int, width: int, grain: float = 6.0) -> Image.Image:
    """An image that compresses about as photographs do: smooth, with some grain."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (max(2, height // 24), max(2, width // 24), 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    grained = np.asarray(smooth) + random.normal(0, grain, (height, width, 3))
    return Image.fromarray(grained.clip(0, 255).astype(np.uint8))


def encode(
    image: Image.Image, format_: str = "JPEG", orientation: int | None = None, **options
) -> bytes:
    """The image as a file's bytes."""
    if orientation is not None:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        options["exif"] = exif
    file = io.BytesIO()
    # The room that Pillow gives its JPEG encoder is too little for noise at a high quality.
    with mock.patch.object(ImageFile, "MAXBLOCK", 2**22):
        image.save(file, format_, **options)
    return file.getvalue()


def write_stl10(path: Path, planes: np.ndarray, level: int = 1, **members: bytes) -> Path:
    """Writes `stl10_binary.tar.gz`.

    Args:
        path: the archive's.
        planes: uint8 [n, 3, 96, 96], column-major, as in the file.
        level: how hard gzip tries.
        members: other members' contents, by the names below `stl10_binary/`, without `.bin`.
    """
    with tarfile.open(path, "w:gz", compresslevel=level) as archive:
        folder = tarfile.TarInfo("stl10_binary")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in members.items():
            add_member(archive, f"stl10_binary/{name}.bin", data)
        add_member(archive, STL10_MEMBER, planes.tobytes())
        add_member(archive, "stl10_binary/class_names.txt", b"airplane\n")
    return path


def write_celeba(path: Path, files: dict[str, bytes]) -> Path:
    """Writes `img_align_celeba.zip` with its folder and these files, by name."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("img_align_celeba/", b"")
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def celeba_name(number: int) -> str:
    """The name of a member."""
    return f"img_align_celeba/{number:06}.jpg"


def tar_bytes(files: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar archive of these files."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in files:
            add_member(archive, name, data)
    return file.getvalue()


def write_imagenet(path: Path, classes: dict[str, dict[str, bytes]]) -> Path:
    """Writes `ILSVRC2012_img_train.tar`: an archive of the classes' archives of these files."""
    with tarfile.open(path, "w") as archive:
        for name, files in classes.items():
            add_member(archive, f"{name}.tar", tar_bytes(files.items()))
    return path
