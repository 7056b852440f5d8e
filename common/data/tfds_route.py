"""The route through tensorflow-datasets (TFDS): converted once to a `.npy` file, then mapped.

The stored PNG or JPEG bytes are decoded by Pillow, not by TensorFlow, so that the pictures are
those of the other route, byte for byte; only their order, which training does not see, differs.
"""

import contextlib
import fcntl
import functools
import json
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from common.data.array_writer import write_array
from common.data.arrays import map_images
from common.data.decoding import DECODER_ERRORS, decode
from common.data.transforms import celeba_picture, halve, imagenet_picture, upright_square
from common.errors import UserError
from common.files import atomic_write

_LOG = logging.getLogger(__name__)

_BATCH = 256


@dataclass(frozen=True)
class TfdsSpec:
    """Where TFDS keeps a data set, and how its pictures become those of the specification.

    Attributes:
        builder: the TFDS builder's name.
        splits: the splits that are joined, in this order.
        stored_shape: (height, width, channels) of the stored pictures, or None if they are of any
            size.
        prepare: makes the training picture from the opened stored file.
        labelled: the classes that occur are counted, and their number is written into the sidecar.
        manual: the archive that the user must have put into TFDS's folder for such, if any.
    """

    builder: str
    splits: tuple[str, ...]
    stored_shape: tuple[int, int, int] | None
    prepare: Callable[[Image.Image], Image.Image | np.ndarray]
    labelled: bool = False
    manual: str = ""


CIFAR10 = TfdsSpec("cifar10", ("train",), (32, 32, 3), lambda picture: upright_square(picture, 32))
# TFDS has already swapped the column-major planes of the binary file.
STL10 = TfdsSpec(
    "stl10", ("unlabelled",), (96, 96, 3), lambda picture: halve(upright_square(picture, 96))
)
CELEBA = TfdsSpec("celeb_a", ("train", "validation", "test"), (218, 178, 3), celeba_picture)
# TFDS stores the files of the archive, but 22 CMYK ones and one PNG as JPEGs that it made of them.
IMAGENET = TfdsSpec(
    "imagenet2012",
    ("train",),
    None,
    imagenet_picture,
    labelled=True,
    manual="ILSVRC2012_img_train.tar",
)


def open_converted(
    spec: TfdsSpec, target: Path, image_shape: tuple[int, int, int], count: int, advice: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """Maps the converted pictures, converting (and, if need be, downloading) them first.

    The file is used only together with its sidecar `<target>.json`, written last, and only if that
    describes this very conversion. TFDS keeps its own files in its default folder, or in that of
    the environment variable TFDS_DATA_DIR; what lies prepared there is used without the network.

    Args:
        spec: the data set.
        target: the `.npy` file to use or to write.
        image_shape: (height, width, channels) of the training pictures.
        count: the number of pictures there must be.
        advice: another way to the data; ends the error messages.

    Returns:
        Read-only uint8 `[count, H, W, C]`, and the sidecar's contents: `builder` (name:version),
        `name`, `splits`, `order`, `images`, `bytes` and, of a labelled data set, `classes`.

    Raises:
        UserError: TFDS is missing, or the download failed, or the data are not as expected.
    """
    found = _read_sidecar(spec, target)
    if found is None:
        _LOG.info("%s: converting from tensorflow-datasets, once (or waiting for a run that is "
                  "at it)", target)  # fmt: skip
        with _explained(target, advice):
            target.parent.mkdir(parents=True, exist_ok=True)
            with _lock(target):
                found = _read_sidecar(spec, target) or _convert(
                    spec, target, image_shape, count, advice
                )
    return map_images(target, image_shape, count, f"Delete {target} to convert it anew."), found


def _read_sidecar(spec: TfdsSpec, target: Path) -> dict[str, Any] | None:
    """Returns the sidecar of a finished conversion of this kind, or None if there is none."""
    try:
        found = json.loads(_sidecar(target).read_text(encoding="utf-8"))
        size = target.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{_sidecar(target)}: cannot be read ({error}). Delete it to convert anew."
        ) from error
    expected = {**_description(spec), "bytes": size}
    if spec.labelled and isinstance(found, dict) and not isinstance(found.get("classes"), int):
        found = None
    if isinstance(found, dict) and not isinstance(found.get("builder"), str):
        found = None
    if not isinstance(found, dict) or {key: found.get(key) for key in expected} != expected:
        _LOG.warning("%s: stale or incomplete, so it is converted anew", target)
        return None
    return found


def _sidecar(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def _description(spec: TfdsSpec) -> dict[str, Any]:
    """What must agree for a conversion to be used again, besides the file's size."""
    return {
        "name": spec.builder,
        "splits": list(spec.splits),
        "order": "splits joined, files in sequence, not shuffled",
    }


def _convert(
    spec: TfdsSpec, target: Path, image_shape: tuple[int, int, int], count: int, advice: str
) -> dict[str, Any]:
    """Writes `target` and then its sidecar; returns the sidecar's contents."""
    builder = _prepared_builder(spec, advice)
    splits = builder.info.splits
    stored = sum(splits[name].num_examples for name in spec.splits if name in splits)
    if stored != count:
        raise UserError(
            f"tensorflow-datasets has {stored:,} pictures of {spec.builder} "
            f"({', '.join(spec.splits)}) at {builder.data_path}, expected {count:,}. "
            f"Delete that folder to prepare it anew, or for a subset say --set "
            f"expected_images={stored}. {advice}"
        )
    _sidecar(target).unlink(missing_ok=True)
    labels: set[int] = set()
    _write_pictures(target, image_shape, _pictures(spec, builder, labels), count)
    found = {
        **_description(spec),
        "builder": f"{spec.builder}:{builder.version}",
        "images": count,
        "bytes": target.stat().st_size,
        **({"classes": len(labels)} if spec.labelled else {}),
    }
    with atomic_write(_sidecar(target)) as file:
        json.dump(found, file, indent=2)
    return found


def _prepared_builder(spec: TfdsSpec, advice: str) -> Any:
    """Returns the TFDS builder, its data on disk; downloads them if they are not there yet."""
    try:
        import tensorflow_datasets as tfds  # noqa: PLC0415 (slow, and needed by this route only)
    except ImportError as error:
        raise UserError(
            f"tensorflow-datasets cannot be imported ({error}), so {spec.builder} cannot be had "
            f"from there: pip install tensorflow-datasets. {advice}"
        ) from error
    data_dir = os.environ.get("TFDS_DATA_DIR")  # TFDS itself looks only once, when imported
    builder = tfds.builder(spec.builder, data_dir=data_dir)
    if builder.is_prepared():
        return builder
    _check_manual(spec, builder, advice)
    _LOG.info("%s: tensorflow-datasets downloads it to %s", spec.builder, builder.data_path)
    try:
        builder.download_and_prepare()
    except Exception as error:  # whatever servers, proxies, disks and TFDS's own code raise
        raise UserError(
            f"tensorflow-datasets could not download and prepare {spec.builder} in "
            f"{builder.data_path} ({type(error).__name__}: {error}). Try again with a network, or "
            f"point TFDS_DATA_DIR at a folder where it is prepared. {advice}"
        ) from error
    return builder


def _check_manual(spec: TfdsSpec, builder: Any, advice: str) -> None:
    """Checks for the archive that TFDS cannot download, before TFDS complains less helpfully."""
    folder = builder.data_path.parents[1] / "downloads" / "manual"
    if spec.manual and not (folder / spec.manual).exists():
        raise UserError(
            f"{folder / spec.manual} not found: tensorflow-datasets cannot download "
            f"{spec.builder}, it prepares it from your own archives there. What it asks for: "
            f"{' '.join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())} {advice}"
        )


def _pictures(spec: TfdsSpec, builder: Any, labels: set[int]) -> Iterator[np.ndarray]:
    """Yields uint8 [n, H, W, C] batches of training pictures, in stored order.

    Args:
        spec: the data set.
        builder: its TFDS builder.
        labels: is filled with the labels that occur, if the data set is labelled.
    """
    number = 0
    stored_size = spec.stored_shape and spec.stored_shape[:2]
    make = functools.partial(decode, prepare=spec.prepare, stored_size=stored_size)
    with ThreadPoolExecutor() as pool:
        for batch in _encoded_batches(spec, builder):
            labels.update(batch.get("label", ()))
            pictures = pool.map(make, batch["image"])
            prepared = []
            try:
                prepared.extend(pictures)
            except DECODER_ERRORS as error:
                raise _unreadable(spec, builder, error, number + len(prepared)) from error
            yield np.stack(prepared)
            number += len(prepared)


def _encoded_batches(spec: TfdsSpec, builder: Any) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches, in stored order.

    Each has `image`, PNG or JPEG files (object [n], of bytes), and, of a labelled data set,
    `label`, int64 [n].
    """
    import tensorflow as tf  # noqa: PLC0415
    import tensorflow_datasets as tfds  # noqa: PLC0415

    wanted = ("image", "label") if spec.labelled else ("image",)
    for split in spec.splits:
        dataset = builder.as_dataset(
            split=split,
            shuffle_files=False,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
        )
        try:
            examples = dataset.map(lambda example: {key: example[key] for key in wanted})
            yield from examples.batch(_BATCH).as_numpy_iterator()
        except tf.errors.OpError as error:
            raise _unreadable(spec, builder, error) from error


def _unreadable(
    spec: TfdsSpec, builder: Any, error: Exception, number: int | None = None
) -> UserError:
    """Returns the error to raise; `number` counts the stored pictures from 0."""
    picture = "" if number is None else f" (picture {number:,}, counted from 0)"
    return UserError(
        f"tensorflow-datasets' {spec.builder} at {builder.data_path}{picture} cannot be read "
        f"({type(error).__name__}: {error}). Delete that folder to prepare it anew."
    )


def _write_pictures(
    target: Path, image_shape: tuple[int, int, int], batches: Iterator[np.ndarray], count: int
) -> None:
    """Writes `count` pictures as a .npy file, a batch at a time."""
    with (
        write_array(target, image_shape) as array,
        tqdm(total=count, desc=target.name, unit="image") as progress,
    ):
        for batch in batches:
            array.append(batch)
            progress.update(len(batch))
        if array.count != count:
            raise UserError(f"tensorflow-datasets gave {array.count:,} of {count:,} pictures")


@contextlib.contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Lets one process at a time convert: a sweep starts several runs at once."""
    with target.with_name(f".{target.name}.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, or the process dies
        yield


@contextlib.contextmanager
def _explained(target: Path, advice: str) -> Iterator[None]:
    """Turns a full disk or a missing permission into an error for the user."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error}). {advice}") from error
