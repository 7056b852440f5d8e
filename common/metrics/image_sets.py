"""Sets of images in files: folders, archives and arrays, each behind `ImageSource`."""

import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from common.data import ArraySource, ImageSource
from common.data.arrays import map_any_images
from common.data.decoding import check_size
from common.errors import UserError
from common.metrics.frechet import GaussianStatistics
from common.metrics.statistics_files import read_npz, statistics_from

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# Pillow goes by the contents, not the name, and would have Ghostscript run a PostScript program.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF")
MAX_IMAGE_BYTES = 64 * 2**20
_SAMPLE_KEYS = ("arr_0", "images", "samples")
_READ_ERRORS = (
    *(OSError, EOFError, ValueError, KeyError, RuntimeError, NotImplementedError, SyntaxError),
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, OverflowError),
    IndexError,  # by zipfile, of a member without a name
    *(UnidentifiedImageError, Image.DecompressionBombError),
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
        arrays = read_npz(path)
        if {"mu", "sigma"} <= set(arrays):
            return statistics_from(path, arrays)
        return _array_source(path, _array_of_images(path, arrays))
    raise UserError(
        f"{path}: known are folders of images, archives ({', '.join(ARCHIVE_SUFFIXES)}), .npy and "
        ".npz"
    )


def _array_source(path: Path, images: np.ndarray) -> ImageSource:
    record = {"path": str(path), "images": len(images), "bytes": path.stat().st_size}
    return ArraySource(path.name, "array", images, record)


def _array_of_images(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    names = [name for name in _SAMPLE_KEYS if name in arrays] or list(arrays)
    images = arrays[names[0]] if names else np.zeros(0)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not len(images):
        found = ", ".join(f"{name}: {a.dtype} {list(a.shape)}" for name, a in arrays.items())
        raise UserError(
            f"{path} has {found or 'no arrays'}; expected are images, uint8 [n, height, width, 3] "
            f"named {' or '.join(_SAMPLE_KEYS)}, or statistics named mu and sigma"
        )
    return images


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
        self.image_shape = self._decode(entries[0]).shape
        self.record = {"path": str(path), "images": len(entries)}

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
        return cls(path, members, lambda member: _bounded(archive.extractfile(member).read))

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `ImageSource.read`; besides, a UserError names an image that is unusable."""
        images = [self._decode(self._entries[index]) for index in indices]
        for index, image in zip(indices, images, strict=True):
            if image.shape != self.image_shape:
                raise UserError(
                    f"{self._path}: image {_name_of(self._entries[index])} has "
                    f"{image.shape[1]}x{image.shape[0]} pixels and the first one "
                    f"{self.image_shape[1]}x{self.image_shape[0]}; all must be of one size"
                )
        return np.stack(images)

    def _decode(self, entry: Any) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(self._read_bytes(entry)), formats=_FORMATS) as image:
                check_size(image)
                return np.asarray(image.convert("RGB"))
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
