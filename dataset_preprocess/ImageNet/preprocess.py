"""`python preprocess.py`: makes `ILSVRC2012/` from `ILSVRC2012_img_train.tar` (specification, 5).

Every image becomes `ILSVRC2012/<class>/<image>.npy`, uint8 [128, 128, 3], RGB. Until all are
there the folder is called `ILSVRC2012.partial`, and the same command goes on with what is missing.
`python preprocess.py --help` shows the options.
"""

import fcntl
import functools
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from common.errors import UserError
from common.parsers.archives import TarMember, check_new, open_archive
from common.parsers.decoding import decode
from common.parsers.tar_archive import Window, tar_files
from common.preparation.members import Fault, decode_members, prepare_members, sparing
from common.preparation.program import Options, Preparation, main, show_progress, write_skipped
from common.preparation.transforms import imagenet_image
from common.preparation.workers import worker_processes

_CLASS = re.compile(r"(?:\./)?([A-Za-z0-9_]+)\.tar", re.ASCII)
_IMAGE = re.compile(r"(?:\./)?(?:([A-Za-z0-9_]+)/)?([A-Za-z0-9_]+)\.(?:JPEG|jpg)", re.ASCII)


class _Class(NamedTuple):
    """The archive of one class: its name, and where it lies in the outer archive."""

    name: str
    offset: int
    size: int


def prepare(options: Options) -> int:
    """Does the work; returns the number of images made."""
    if options.output.exists():
        raise UserError(f"{options.output} is there already; to make it anew, move it away")
    partial = options.output.with_name(options.output.name + ".partial")
    with open_archive(options.input) as archive:
        classes = _list_classes(options, archive)
        with _claimed(partial, {each.name for each in classes}):
            made = _make_images(options, archive, classes, partial)
            os.sync()  # all at once: a million files one by one would take hours
            partial.rename(options.output)
    return made


def _make_images(options: Options, archive: BinaryIO, classes: list[_Class], partial: Path) -> int:
    work = functools.partial(_work, options.size, options.skip, partial)
    skipped, found = [], 0
    with (
        worker_processes(options.workers) as pool,
        show_progress(options.expected_images, options.output.name) as progress,
    ):

        def count(images: int = 1) -> None:
            nonlocal found
            found += images
            progress.update(images)  # which, where bars are switched off, counts nothing

        members = _missing(options, archive, classes, partial, count)
        for made, faults in prepare_members(pool, options.workers, options.input, members, work):
            skipped.extend(faults)
            count(made + len(faults))
        options.check_images(found)
        write_skipped(options.output, skipped, found)
    if skipped:
        _check_classes(options.input, classes, partial)
    return found - len(skipped)


def _check_classes(path: Path, classes: list[_Class], partial: Path) -> None:
    """Raises a UserError if a class has no images left: training would refuse its folder."""
    for each in classes:
        if not os.listdir(partial / each.name):
            raise UserError(
                f"{path}: {each.name}.tar: none of its images could be decoded; get the archive "
                "anew, or make one without that class"
            )


def _work(
    size: int, skip: bool, partial: Path, archive: Path, members: list[TarMember]
) -> tuple[int, list[Fault]]:
    """Makes and writes some images; returns how many. In a worker process."""
    faults = []
    image = functools.partial(imagenet_image, size=size)
    make = functools.partial(decode, prepare=functools.partial(sparing, image))
    for member, result in decode_members(make, skip, archive, members):
        if isinstance(result, str):
            faults.append((member.name, result))
        else:
            _write(f"{partial}/{member.folder}/{member.stem}.npy", _header(size), result, member)
    return len(members) - len(faults), faults


def _write(path: str, header: bytes, image: np.ndarray, member: TarMember) -> None:
    try:
        # With room for all of it in the buffer, the file is written at once.
        with open(path, "wb", buffering=len(header) + image.nbytes) as file:
            file.write(header)
            file.write(image.data)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error}); {member.name} was the image"
        ) from error


@functools.lru_cache
def _header(size: int) -> bytes:
    """Returns what an image's file begins with."""
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (size, size, 3)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def _list_classes(options: Options, archive: BinaryIO) -> list[_Class]:
    """Returns the archives in the archive."""
    classes: list[_Class] = []
    seen: set[str] = set()
    end = os.fstat(archive.fileno()).st_size
    for info in tar_files(options.input, Window(archive, 0, end)):
        name = _CLASS.fullmatch(info.name)
        if not name:
            raise UserError(f"{options.input}: {info.name} is not <class>.tar")
        check_new(options.input, info.name, name[1], seen)
        classes.append(_Class(name[1], info.offset_data, info.size))
    if len(classes) != options.expected_classes:
        raise UserError(
            f"{options.input}: found {len(classes):,} classes, expected "
            f"{options.expected_classes:,}; for a subset say --expected_classes={len(classes)}"
        )
    return classes


def _missing(
    options: Options,
    archive: BinaryIO,
    classes: list[_Class],
    partial: Path,
    on_found: Callable[[], None],
) -> Iterator[TarMember]:
    """Yields the images that are not made yet; calls `on_found` for each of the others."""
    count = 0
    for each in classes:
        folder = partial / each.name
        folder.mkdir(exist_ok=True)
        complete = _complete(folder, len(_header(options.size)) + 3 * options.size**2)
        seen: set[str] = set()
        for member in _list_members(options.input, archive, each):
            check_new(options.input, member.name, member.stem, seen)
            if (count := count + 1) > options.expected_images:
                raise UserError(
                    f"{options.input}: has more than the expected {options.expected_images:,} "
                    "images; for another number say --expected_images"
                )
            if member.stem in complete:
                on_found()
            else:
                yield member
        if not seen:
            raise UserError(f"{options.input}: {each.name}.tar has no images")
        if strange := complete - seen:
            raise UserError(f"{folder / min(strange)}.npy: not of this archive; delete {partial}")


def _list_members(path: Path, archive: BinaryIO, which: _Class) -> Iterator[TarMember]:
    """Yields a class's images."""
    inner = f"{which.name}.tar"
    for info in tar_files(path, Window(archive, which.offset, which.size), inner):
        found = _IMAGE.fullmatch(info.name)
        if not found or found[1] not in (None, which.name):
            raise UserError(f"{path}: {inner}: {info.name} is not <image>.JPEG of that class")
        yield TarMember(
            name=f"{inner}: {info.name}",
            folder=which.name,
            stem=found[2],
            offset=which.offset + info.offset_data,
            size=info.size,
        )


def _complete(folder: Path, size: int) -> set[str]:
    """Returns the stems of the files of the right size; another size is that of a torn one."""
    with os.scandir(folder) as entries:
        return {
            entry.name.removesuffix(".npy")
            for entry in entries
            if entry.is_file(follow_symlinks=False) and entry.stat().st_size == size
        }


@contextmanager
def _claimed(partial: Path, classes: set[str]) -> Iterator[None]:
    """Makes the folder, for this process alone, after checking what an earlier one left in it."""
    partial.mkdir(exist_ok=True)
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with this process
        if strange := set(os.listdir(partial)) - classes:
            raise UserError(f"{partial / min(strange)}: not of this archive; delete {partial}")
        yield
    except BlockingIOError:
        raise UserError(f"{partial}: another process writes there; wait for that to end") from None
    finally:
        os.close(descriptor)


PREPARATION = Preparation(
    name="ImageNet",
    archive="ILSVRC2012_img_train.tar",
    output="ILSVRC2012",
    size=128,
    images=1_281_167,
    classes=1_000,
    prepare=prepare,
    resumes=True,
)

if __name__ == "__main__":
    sys.exit(main(PREPARATION, Path(__file__).parent))
