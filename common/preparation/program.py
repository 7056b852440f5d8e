"""The command line of `preprocess.py`: options, messages, interruption, exit status."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from absl import flags
from tqdm import tqdm

from common import flag_values
from common.errors import UserError
from common.exit_status import EXIT_INTERRUPTED, EXIT_OK, EXIT_USER_ERROR
from common.files import atomic_write

_MOST_WORKERS = 6  # by default: with ImageNet's largest image they take 475 MB in all


@dataclass(frozen=True)
class Preparation:
    """What one data set's script declares.

    Attributes:
        name: the data set's name, for messages.
        archive: the archive's usual name, beside the script.
        output: the usual name of what is made, beside the script.
        size: height and width of the training images.
        images: the number of images in the genuine archive.
        classes: the number of classes in the genuine archive, if it has classes.
        prepare: does the work; see `Options`. Returns the number of images made.
        skips: whether single images may be damaged, so that `--on_error` makes sense.
        resumes: whether the same command goes on where it stopped.
    """

    name: str
    archive: str
    output: str
    size: int
    images: int
    prepare: Callable[["Options"], int]
    classes: int | None = None
    skips: bool = True
    resumes: bool = False


@dataclass(frozen=True)
class Options:
    """The command line, checked.

    Attributes:
        input: the archive.
        output: the file or folder to make.
        size: height and width of the images to make.
        workers: the number of processes or threads.
        expected_images: the number of images that the archive must have.
        expected_classes: likewise of classes, or None.
        skip: whether a damaged image is skipped, rather than the end of the work.
    """

    input: Path
    output: Path
    size: int
    workers: int
    expected_images: int
    expected_classes: int | None
    skip: bool

    def check_images(self, found: int) -> None:
        """Raises a UserError unless this is the number of images to expect."""
        if found != self.expected_images:
            raise UserError(
                f"{self.input}: found {found:,} images, expected {self.expected_images:,}; "
                f"for a subset say --expected_images={found}"
            )


def main(preparation: Preparation, folder: Path, argv: list[str] | None = None) -> int:
    """Runs a script.

    Args:
        preparation: the data set's.
        folder: the script's; input and output are there by default.
        argv: arguments with the program's name first; by default the process's.

    Returns:
        The exit status: 0 done, 2 something the user must mend, 75 stopped by a signal.
    """
    try:
        options = _parse(preparation, folder, sys.argv if argv is None else argv)
        return EXIT_OK if options is None else _run_stoppable(preparation, options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR


def _run_stoppable(preparation: Preparation, options: Options) -> int:
    """Does the work, unless a signal stops it; returns the exit status."""
    try:
        with _stopping_on_signals():
            _run(preparation, options)
    except KeyboardInterrupt:
        then = "go on" if preparation.resumes else "start anew"
        print(f"stopped: {options.output} was not made; run it again to {then}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_OK


def show_progress(total: int, name: str) -> tqdm:
    """Returns a progress bar, which shows rate and time left."""
    return tqdm(total=total, desc=name, unit="image", smoothing=0.05)


def write_skipped(output: Path, skipped: list[tuple[str, str]], total: int) -> None:
    """Lists the skipped ones of `total` images in `<output>.skipped.txt`; removes an old list.

    Each line is a member's name, a tab, and the reason.

    Raises:
        UserError: all were skipped.
    """
    path = output.with_name(output.name + ".skipped.txt")
    if not skipped:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as file:
        file.writelines(f"{name}\t{reason}\n" for name, reason in skipped)
    if len(skipped) == total:
        raise UserError(f"{output}: none of the {total:,} images could be decoded, see {path}")
    print(f"{len(skipped):,} images were skipped, see {path}", file=sys.stderr)


def _run(preparation: Preparation, options: Options) -> None:
    start = time.monotonic()
    try:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        made = preparation.prepare(options)
    except OSError as error:  # reading the archive has been explained where it happens
        raise UserError(f"{options.output}: cannot be written ({error})") from error
    seconds = time.monotonic() - start
    print(f"{options.output}: {made:,} images in {seconds:.0f} s")
    needed = [f"--set expected_images={made}"] if made != preparation.images else []
    if options.expected_classes != preparation.classes:
        needed.append(f"--set expected_classes={options.expected_classes}")
    if needed:
        print("to train on them:", *needed)


def _define_flags(values: flags.FlagValues, preparation: Preparation, folder: Path) -> None:
    """All options; their help texts are the reference."""
    common: dict[str, Any] = {"flag_values": values}
    positive: dict[str, Any] = {"lower_bound": 1, **common}
    flags.DEFINE_string("input", str(folder / preparation.archive), "the archive", **common)
    flags.DEFINE_string("output", str(folder / preparation.output), "what is made", **common)
    flags.DEFINE_integer(
        "size", preparation.size, "height and width of the images made", upper_bound=1024,
        **positive,
    )  # fmt: skip
    flags.DEFINE_integer(
        "workers",
        min(len(os.sched_getaffinity(0)), _MOST_WORKERS),
        "decoding processes or threads; by default one for each core, but no more than "
        f"{_MOST_WORKERS}, which together stay below 500 MB",
        **positive,
    )
    flags.DEFINE_integer(
        "expected_images", preparation.images, "images the archive must have", **positive
    )
    if preparation.classes:
        flags.DEFINE_integer(
            "expected_classes", preparation.classes, "classes the archive must have", **positive
        )
    if preparation.skips:
        flags.DEFINE_enum(
            "on_error",
            "fail",
            ["fail", "skip"],
            "what to do about a damaged image; skip lists it in <output>.skipped.txt",
            **common,
        )
    flags.DEFINE_bool("help", False, "show this help", short_name="h", **common)


def _parse(preparation: Preparation, folder: Path, argv: list[str]) -> Options | None:
    """The options, or None after `--help`."""
    values = flags.FlagValues()
    _define_flags(values, preparation, folder)
    rest = flag_values.parse(values, argv)
    if values.help:
        print(f"{preparation.name}: python preprocess.py [options]\n{values.get_help()}")
        return None
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}: options start with -- (see --help)")
    given = values.flag_values_dict()
    options = Options(
        input=Path(given["input"]),
        output=Path(given["output"]),
        size=given["size"],
        workers=given["workers"],
        expected_images=given["expected_images"],
        expected_classes=given.get("expected_classes"),
        skip=given.get("on_error") == "skip",
    )
    if not os.path.isfile(options.input):  # unlike Path.is_file() on a name that is too long
        raise UserError(f"--input: {options.input} not found; put the archive there")
    is_file = preparation.output.endswith(".npy")
    if is_file and (os.path.isdir(options.output) or given["output"].endswith(os.sep)):
        raise UserError(
            f"--output: {given['output']} is a folder; say the file's name, too: "
            f"--output={options.output / preparation.output}"
        )
    return options


@contextmanager
def _stopping_on_signals() -> Iterator[None]:
    """Turns SIGTERM into KeyboardInterrupt, as SIGINT is already; a second signal kills."""

    def on_signal(number: int, frame: FrameType | None) -> NoReturn:
        del number, frame
        for each in previous:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt

    previous = {n: signal.signal(n, on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
