"""`python preprocess.py`: makes `celeba.npy` from `img_align_celeba.zip` (specification, 5).

The images stand in the order of their numbers, uint8 [202599, 64, 64, 3], RGB.
`python preprocess.py --help` shows the options.
"""

import re
import sys
import zipfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from common.parsers.archives import ZipMember, check_name, check_new
from common.preparation.array_writer import Places, write_array
from common.preparation.celeba import decode_celeba
from common.preparation.members import Fault, decode_members, prepare_members
from common.preparation.program import Options, Preparation, main, show_progress, write_skipped
from common.preparation.workers import worker_processes

_NAME = re.compile(r"img_align_celeba/[0-9]{6}\.jpg", re.ASCII)


def prepare(options: Options) -> int:
    """Does the work; returns the number of images made."""
    members = _list_members(options.input)
    options.check_images(len(members))
    skipped = []
    with (
        write_array(options.output, (options.size, options.size, 3)) as array,
        worker_processes(options.workers) as pool,  # within: they must end before the file does
        show_progress(len(members), options.output.name) as progress,
    ):
        work = partial(_work, array.places, options.skip)
        for made in prepare_members(pool, options.workers, options.input, members, work):
            array.take(made.first, made.images)
            skipped.extend(made.faults)
            progress.update(made.images + len(made.faults))
        write_skipped(options.output, skipped, len(members))
    return array.count


class _Made(NamedTuple):
    """What a worker made of a few members: so many `images` from the place `first` on."""

    first: int
    images: int
    faults: list[Fault]


def _work(places: Places, skip: bool, archive: Path, members: list[ZipMember]) -> _Made:
    """Makes some images and writes them, in a row. In a worker process."""
    pixels = np.empty((len(members), *places.image_shape), np.uint8)
    faults, count = [], 0
    make = partial(decode_celeba, size=places.image_shape[0])
    for member, result in decode_members(make, skip, archive, members):
        if isinstance(result, str):
            faults.append((member.name, result))
        else:
            pixels[count] = result
            count += 1
    first = members[0].number
    try:
        with places.open() as file:
            places.fill(file, first, pixels[:count])
    except OSError as error:
        raise UserError(
            f"{places.path}: cannot be written ({error}); {members[0].name} was the image"
        ) from error
    return _Made(first, count, faults)


def _list_members(archive: Path) -> list[ZipMember]:
    """Returns the images in the order of their numbers."""
    try:
        with zipfile.ZipFile(archive) as file:
            infos = [info for info in file.infolist() if not info.is_dir()]
    # zipfile raises an IndexError of a member without a name.
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, IndexError) as error:
        raise UserError(f"{archive}: not a readable zip archive ({error}); get it anew") from error
    seen: set[str] = set()
    for info in infos:
        check_name(archive, info.filename)
        check_new(archive, info.filename, info.filename, seen)
    infos.sort(key=lambda info: info.filename)
    return [_member(archive, number, info) for number, info in enumerate(infos)]


def _member(archive: Path, number: int, info: zipfile.ZipInfo) -> ZipMember:
    if not _NAME.fullmatch(info.filename):
        raise UserError(f"{archive}: {info.filename} is not one of img_align_celeba/<number>.jpg")
    plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if not plain or info.flag_bits & 1:
        raise UserError(f"{archive}: {info.filename} is encrypted or packed in an unknown way")
    return ZipMember(
        name=info.filename,
        number=number,
        header=info.header_offset,
        packed=info.compress_size,
        size=info.file_size,
        crc=info.CRC,
        deflated=info.compress_type == zipfile.ZIP_DEFLATED,
    )


PREPARATION = Preparation(
    name="CelebA",
    archive="img_align_celeba.zip",
    output="celeba.npy",
    size=64,
    images=202_599,
    prepare=prepare,
)

if __name__ == "__main__":
    sys.exit(main(PREPARATION, Path(__file__).parent))
