"""A folder of class folders with one `.npy` file for every image: ImageNet's preparation."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.data.dataset import Request
from common.data.source import ImageSource
from common.errors import UserError
from common.parsers.npy import read_into

_SUFFIX = b".npy"

_READERS = 8
_POOL = ThreadPoolExecutor(_READERS, thread_name_prefix="images")  # its threads start when used


class FolderSource(ImageSource):
    """Images in files `<class>/<image>.npy`, classes and files sorted by their names' bytes.

    Only the names are looked at on opening, and only they are kept (some 30 MB for ImageNet's 1.28
    million); a file's contents are checked whenever it is read, those of some for the `record`.

    Args:
        name: see `ImageSource`.
        folder: the folder of the class folders. It must hold nothing else, and they nothing but
            `.npy` files (or links to such).
        image_shape: see `ImageSource`.
        advice: how to get the right files; ends every error message.

    Attributes:
        classes: the number of class folders.

    Raises:
        UserError: the folder cannot be read, or has something else in it.
    """

    def __init__(
        self, name: str, folder: Path, image_shape: tuple[int, int, int], advice: str
    ) -> None:
        self.name = name
        self.route = "npy"
        self.image_shape = image_shape
        self._folder = os.fsencode(folder)
        self._advice = advice
        try:
            self._classes = _list_classes(self._folder, advice)
            self._files = [
                _list_files(os.path.join(self._folder, name), advice)
                for name in tqdm(self._classes, desc=f"{name}: listing the files", unit="class")
            ]
        except OSError as error:
            raise UserError(f"{folder}: cannot be listed ({error}). {advice}") from error
        self._ends = np.cumsum([len(files) for files in self._files], dtype=np.int64)
        self.classes = len(self._classes)
        self.description = {
            "dataset": name,
            "route": self.route,
            "classes": self.classes,
            "images": len(self),
            "names_sha256": self._checksum(),
        }

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `ImageSource.read`; besides, a UserError names a file that is not as it should be."""
        indices = np.asarray(indices)
        outside = indices[(indices < 0) | (indices >= len(self))]
        if len(outside):
            raise IndexError(f"image index {outside[0]} is not in [0, {len(self)})")
        out = np.empty((len(indices), *self.image_shape), np.uint8)

        def fill(start: int) -> None:
            for position in range(start, len(indices), _READERS):
                read_into(self._path(indices[position]), out[position], self._advice)

        # One task for each thread, not for each image: the queue stays short whatever is asked.
        list(_POOL.map(fill, range(min(_READERS, len(indices)))))
        return out

    def read_labels(self) -> np.ndarray:
        """See `ImageSource.read_labels`: the places of the class folders in their order."""
        return np.repeat(np.arange(len(self._files)), [len(files) for files in self._files])

    def _path(self, index: int) -> str:
        """Returns the file of the image at `index`."""
        which = int(np.searchsorted(self._ends, index, side="right"))
        file = self._files[which][index - self._ends[which]]  # counted from the class's end
        return os.fsdecode(os.path.join(self._folder, self._classes[which], file))

    def _checksum(self) -> str:
        """Returns the SHA-256 of all `<class>/<file>` in order, each ended by a zero byte."""
        digest = hashlib.sha256()
        for folder, files in zip(self._classes, self._files, strict=True):
            digest.update(b"".join(folder + b"/" + file + b"\0" for file in files.tolist()))
        return digest.hexdigest()


def open_folder(request: Request) -> ImageSource:
    """Opens a route: the folder of class folders at the data set's place.

    Raises:
        UserError: see `FolderSource`; or there are not as many images and classes as expected.
    """
    path = request.existing()
    source = FolderSource(request.name, path, request.image_shape, request.advice)
    request.check_counts(path, len(source), source.classes or 0)
    return source


def _list_classes(folder: bytes, advice: str) -> list[bytes]:
    """Returns the sorted names of the class folders."""
    with os.scandir(folder) as entries:
        names = [
            entry.name
            if entry.is_dir() and not entry.name.startswith(b".")
            else _refuse(entry, "is not a class folder", advice)
            for entry in entries
        ]
    return sorted(names)


def _list_files(folder: bytes, advice: str) -> np.ndarray:
    """Returns the sorted names of a class's files, bytes [n] (`S`), which take no object each."""
    with os.scandir(folder) as entries:
        names = [
            entry.name
            if entry.name.endswith(_SUFFIX) and not entry.name.startswith(b".") and entry.is_file()
            else _refuse(entry, "is not a .npy file", advice)
            for entry in entries
        ]
    if not names:
        raise UserError(f"{os.fsdecode(folder)}: has no .npy files. {advice}")
    return np.sort(np.array(names))


def _refuse(entry: os.DirEntry, fault: str, advice: str) -> bytes:
    raise UserError(
        f"{os.fsdecode(entry.path)}: {fault}; nothing else belongs there, so move it elsewhere. "
        f"{advice}"
    )
