"""`python preprocess.py`: makes `stl10.npy` from `stl10_binary.tar.gz` (specification, 5).

The unlabelled pictures stand in their order, uint8 [100000, 48, 48, 3], RGB.
`python preprocess.py --help` shows the options.
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tarfile import TarInfo

import numpy as np

from common.data.array_writer import ArrayWriter, write_array
from common.data.transforms import halve_planes, resize_linear
from common.errors import UserError
from common.preparation.gzip_reader import GzipReader
from common.preparation.members import DamagedError, check_new
from common.preparation.program import Options, Preparation, main, show_progress
from common.preparation.tar_archive import tar_files
from common.preparation.workers import in_order

MEMBER = "stl10_binary/unlabeled_X.bin"
STORED_SHAPE = (3, 96, 96)
_PICTURE = 3 * 96 * 96
_BLOCK = 32  # pictures at a time, less than a MB


def prepare(options: Options) -> int:
    """Does the work; returns the number of pictures made.

    The archive is one stream, which this thread unpacks; others shrink what it has unpacked. zlib
    and NumPy let them run at the same time.
    """
    with (
        GzipReader(options.input) as archive,
        ThreadPoolExecutor(options.workers) as pool,
        write_array(options.output, (options.size, options.size, 3)) as array,
        show_progress(options.expected_images, options.output.name) as progress,
    ):
        blocks = _blocks(options, archive)
        work = partial(_shrink, options.size)
        for pictures in in_order(pool, work, blocks, 2 * options.workers):
            _append(array, pictures)
            progress.update(len(pictures))
        if not array.count:
            raise UserError(f"{options.input}: has no {MEMBER}; get the archive anew")
    return array.count


def _append(array: ArrayWriter, pictures: np.ndarray) -> None:
    try:
        array.append(pictures)
    except OSError as error:
        raise UserError(
            f"{array.places.path}: cannot be written ({error}); picture {array.count:,} of "
            f"{MEMBER} was next"
        ) from error


def _blocks(options: Options, archive: GzipReader) -> Iterator[bytes]:
    """Yields the pictures' bytes; then reads the archive to its end, where its checksum is."""
    seen = set()
    try:
        for info in tar_files(options.input, archive):
            if info.name.removeprefix("./") == MEMBER:
                check_new(options.input, MEMBER, MEMBER, seen)
                options.check_images(_count(options, info))
                for done in range(0, options.expected_images, _BLOCK):
                    yield archive.read(_PICTURE * min(_BLOCK, options.expected_images - done))
        archive.drain()
    except DamagedError as error:
        raise UserError(f"{options.input}: {MEMBER} is damaged ({error}); get it anew") from error


def _count(options: Options, info: TarInfo) -> int:
    count, rest = divmod(info.size, _PICTURE)
    if rest:
        raise UserError(
            f"{options.input}: {MEMBER} has {info.size:,} bytes, not a multiple of {_PICTURE:,}"
        )
    return count


def _shrink(size: int, data: bytes) -> np.ndarray:
    """Returns the upright training pictures, uint8 [n, size, size, 3]."""
    planes = np.frombuffer(data, np.uint8).reshape(-1, *STORED_SHAPE)
    if 2 * size == STORED_SHAPE[1]:
        return halve_planes(planes)
    return np.stack([resize_linear(picture, size) for picture in planes.transpose(0, 3, 2, 1)])


PREPARATION = Preparation(
    name="STL10",
    archive="stl10_binary.tar.gz",
    output="stl10.npy",
    size=48,
    images=100_000,
    prepare=prepare,
    skips=False,
)

if __name__ == "__main__":
    sys.exit(main(PREPARATION, Path(__file__).parent))
