"""`python preprocess.py`: makes `stl10.npy` from `stl10_binary.tar.gz` (specification, 5).

The unlabelled images stand in their order, uint8 [100000, 48, 48, 3], RGB.
`python preprocess.py --help` shows the options.
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tarfile import TarInfo

import numpy as np

from common.errors import UserError
from common.parsers.archives import DamagedError, check_new
from common.parsers.gzip_reader import GzipReader, lacks_isal
from common.parsers.tar_archive import tar_files
from common.preparation.array_writer import Places, write_array
from common.preparation.program import Options, Preparation, main, show_progress
from common.preparation.transforms import halve_planes, resize_linear
from common.preparation.workers import in_order

MEMBER = "stl10_binary/unlabeled_X.bin"
STORED_SHAPE = (3, 96, 96)
_IMAGE_BYTES = 3 * 96 * 96
_BLOCK = 32  # images at a time, less than a MB


def prepare(options: Options) -> int:
    """Does the work; returns the number of images made.

    The archive is one stream, which this thread unpacks; others shrink what it has unpacked, and
    write it. zlib, ISA-L and NumPy let them run at the same time.
    """
    if lacks_isal():
        print("pip install -e '.[prepare]' makes this quicker", file=sys.stderr)
    with (
        GzipReader(options.input) as archive,
        write_array(options.output, (options.size, options.size, 3)) as array,
        ThreadPoolExecutor(options.workers) as pool,  # within: they must end before the file does
        show_progress(options.expected_images, options.output.name) as progress,
    ):
        blocks = _blocks(options, archive)
        work = partial(_work, array.places)
        for first, count in in_order(pool, work, blocks, 2 * options.workers):
            array.take(first, count)
            progress.update(count)
        if not array.count:
            raise UserError(f"{options.input}: has no {MEMBER}; get the archive anew")
    return array.count


def _blocks(options: Options, archive: GzipReader) -> Iterator[tuple[int, bytearray]]:
    """Yields some images' bytes, with the number of the first.

    Then it reads the archive to its end, where its checksum is.
    """
    seen: set[str] = set()
    try:
        for info in tar_files(options.input, archive):
            if info.name.removeprefix("./") == MEMBER:
                check_new(options.input, MEMBER, MEMBER, seen)
                options.check_images(_count(options, info))
                for first in range(0, options.expected_images, _BLOCK):
                    count = min(_BLOCK, options.expected_images - first)
                    yield first, archive.read(_IMAGE_BYTES * count)
        archive.drain()
    except DamagedError as error:
        raise UserError(f"{options.input}: {MEMBER} is damaged ({error}); get it anew") from error


def _count(options: Options, info: TarInfo) -> int:
    count, rest = divmod(info.size, _IMAGE_BYTES)
    if rest:
        raise UserError(
            f"{options.input}: {MEMBER} has {info.size:,} bytes, not a multiple of {_IMAGE_BYTES:,}"
        )
    return count


def _work(places: Places, block: tuple[int, bytearray]) -> tuple[int, int]:
    """Makes some images and writes them; returns the first one's number, and how many."""
    first, data = block
    planes = np.frombuffer(data, np.uint8).reshape(-1, *STORED_SHAPE)
    images = _shrink(places.image_shape[0], planes)
    try:
        with places.open() as file:
            places.fill(file, first, images)
    except OSError as error:
        raise UserError(
            f"{places.path}: images {first:,} to {first + len(images) - 1:,} of {MEMBER} "
            f"cannot be written ({error})"
        ) from error
    return first, len(images)


def _shrink(size: int, planes: np.ndarray) -> np.ndarray:
    """Returns the upright training images, uint8 [n, size, size, 3], of uint8 [n, 3, 96, 96]."""
    if 2 * size == STORED_SHAPE[1]:
        return halve_planes(planes)
    return np.stack([resize_linear(image, size) for image in planes.transpose(0, 3, 2, 1)])


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
