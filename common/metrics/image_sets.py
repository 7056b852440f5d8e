"""Sets of images in files: folders, archives and arrays, each behind `ImageSource`."""

import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.data import ArraySource, ImageSource
from common.errors import UserError
from common.metrics.frechet import GaussianStatistics
from common.metrics.statistics_files import read_statistics
from common.parsers.decoding import DECODER_ERRORS, as_rgb, decode
from common.parsers.npy import map_any_images
from common.parsers.npz import NpzFile

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
# Pillow goes by the contents, not the name, and would have Ghostscript run a PostScript program.
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_IMAGE_BYTES = 64 * 2**20
_SAMPLE_KEYS = ("arr_0", "images", "samples")
_READ_ERRORS = (
    *DECODER_ERRORS,
    *(KeyError, RuntimeError, NotImplementedError, OverflowError, struct.error),
    IndexError,  # by zipfile, of a member without a name
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
)


def open_files(path: Path) -> ImageSource | GaussianStatistics:
    """Opens a set of images, or statistics of one, that files hold.

    Args:
        path: A folder with image files in it, at any depth, in the order of their names; an
            archive of such (zip in the order of names, tar in its own), which is not extracted; a
            `.npy` or `.npz` file with a uint8 array `[n, H, W, 3]`; or a `.npz` file with `mu`
            and `sigma`.

    Returns:
        The images, RGB and all of one size, or the statistics.

    Raises:
        UserError: The path is none of these, or what it holds is unusable.
    """
    name = path.name.lower()
    if path.is_dir():
        return _EncodedImages.of_folder(path)
    if name.endswith(".zip"):
        return _EncodedImages.of_zip(path)
    if name.endswith(ARCHIVE_SUFFIXES):
        return _EncodedImages.of_tar(path)
    if name.endswith(".npy"):
        images = map_any_images(path, "Expected is a uint8 array [n, height, width, 3].")
        return _array_source(path, images)
    if name.endswith(".npz"):
        file = NpzFile(path)
        if {"mu", "sigma"} <= set(file.headers):
            return read_statistics(file)
        return _array_source(path, _array_of_images(file))
    raise UserError(
        f"{path}: known are folders of images, archives ({', '.join(ARCHIVE_SUFFIXES)}), .npy and "
        ".npz"
    )


def _array_source(path: Path, images: np.ndarray) -> ImageSource:
    facts = {"path": str(path), "images": len(images), "bytes": path.stat().st_size}
    return ArraySource(path.name, "array", images, facts)


def _array_of_images(file: NpzFile) -> np.ndarray:
    names = [name for name in _SAMPLE_KEYS if name in file.headers] or list(file.headers)
    shape, dtype, _ = file.headers[names[0]] if names else ((), None, 0)
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or not all(shape):
        found = ", ".join(f"{name}: {header}" for name, header in file.headers.items())
        raise UserError(
            f"{file.path} has {found or 'no arrays'}; expected are images, uint8 "
            f"[n, height, width, 3] named {' or '.join(_SAMPLE_KEYS)}, or statistics named mu and "
            "sigma"
        )
    return file.read(names[0])


class _EncodedImages(ImageSource):
    """Images in files or members of an archive, decoded when they are read."""

    route = "files"

    def __init__(self, path: Path, entries: list[Any], read_bytes: Callable[[Any], bytes]):
        if not entries:
            raise UserError(f"{path} has no images ({', '.join(IMAGE_SUFFIXES)})")
        self.name = path.name
        self._path = path
        self._entries = entries
        self._read_bytes = read_bytes
        self._first_size: tuple[int, int] | None = None  # (width, height), once it is known
        self.image_shape = self._decode(entries[0]).shape
        self._first_size = self.image_shape[1::-1]
        self.description = {"path": str(path), "images": len(entries)}

    @classmethod
    def of_folder(cls, path: Path) -> "_EncodedImages":
        files = []
        for folder, _, names in os.walk(path):
            files += [os.path.join(folder, name) for name in names if _is_image(name)]
        return cls(path, sorted(files), _read_file)

    @classmethod
    def of_zip(cls, path: Path) -> "_EncodedImages":
        try:
            archive = zipfile.ZipFile(path)
            members = [m for m in archive.infolist() if not m.is_dir() and _is_image(m.filename)]
        except _READ_ERRORS as error:
            raise UserError(f"{path} is not a readable zip archive ({error})") from error

        def read(member: zipfile.ZipInfo) -> bytes:
            with archive.open(member) as file:
                return _bounded(file.read)

        return cls(path, sorted(members, key=lambda member: member.filename), read)

    @classmethod
    def of_tar(cls, path: Path) -> "_EncodedImages":
        try:
            archive = tarfile.open(path)  # noqa: SIM115 (open as long as the set)
            members = [m for m in archive if m.isreg() and not m.issparse() and _is_image(m.name)]
        except _READ_ERRORS as error:
            raise UserError(f"{path} is not a readable tar archive ({error})") from error

        def read(member: tarfile.TarInfo) -> bytes:
            file = archive.extractfile(member)
            assert file is not None  # of a regular file
            return _bounded(file.read)

        return cls(path, members, read)

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `ImageSource.read`; besides, a UserError names an image that is unusable."""
        return np.stack([self._decode(self._entries[index]) for index in indices])

    def _decode(self, entry: Any) -> np.ndarray:
        def prepare(image: Image.Image) -> Image.Image:
            if self._first_size not in (None, image.size):  # before pixels take much memory
                raise UserError(
                    f"{self._path}: image {_name_of(entry)} has {image.width}x{image.height} "
                    f"pixels and the first one {self._first_size[0]}x{self._first_size[1]}; all "
                    "must be of one size"
                )
            return as_rgb(image)

        try:
            return decode(self._read_bytes(entry), prepare, formats=IMAGE_FORMATS)
        except _READ_ERRORS as error:
            raise UserError(
                f"{self._path}: image {_name_of(entry)} cannot be read ({error})"
            ) from error


def _is_image(name: str) -> bool:
    base = os.path.basename(name)
    return base.lower().endswith(IMAGE_SUFFIXES) and not base.startswith(".")


def _read_file(path: str) -> bytes:
    with open(path, "rb") as file:
        return _bounded(file.read)


def _bounded(read: Callable[[int], bytes]) -> bytes:
    data = read(MAX_IMAGE_BYTES + 1)
    if len(data) > MAX_IMAGE_BYTES:
        raise ValueError(f"larger than {MAX_IMAGE_BYTES} bytes")
    return data


def _name_of(entry: Any) -> str:
    return getattr(entry, "filename", None) or getattr(entry, "name", None) or str(entry)
