"""The route through tensorflow-datasets (TFDS): converted once to a `.npy` file, then mapped.

The stored PNG or JPEG bytes are decoded by Pillow, not by TensorFlow, so that the images are
those of the other route, byte for byte; only their order, which training does not see, differs.
Labels stand in a `.npy` file beside the images. A conversion that was made without them is given
them when they are first asked for.
"""

import contextlib
import fcntl
import functools
import hashlib
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

from common.data.dataset import Request
from common.data.source import ImageSource
from common.errors import UserError
from common.files import atomic_write
from common.parsers.decoding import DECODER_ERRORS, decode
from common.parsers.npy import map_images, read_into
from common.preparation.array_writer import write_array
from common.preparation.transforms import celeba_image, halve, imagenet_image, upright_square

_LOG = logging.getLogger(__name__)

_BATCH = 256


@dataclass(frozen=True)
class TfdsSpec:
    """Where TFDS keeps a data set, and how its images become those of the specification.

    Attributes:
        builder: the TFDS builder's name.
        splits: the splits that are joined, in this order.
        stored_shape: (height, width, channels) of the stored images, or None if they are of any
            size.
        prepare: makes the training image from the opened stored file.
        labelled: it has the class of each image as the feature `label`.
        counts_classes: the classes that occur are counted, and their number is written into the
            sidecar; labels are numbers of those that occur.
        manual: the archive that the user must have put into TFDS's folder for such, if any.
    """

    builder: str
    splits: tuple[str, ...]
    stored_shape: tuple[int, int, int] | None
    prepare: Callable[[Image.Image], Image.Image | np.ndarray]
    labelled: bool = False
    counts_classes: bool = False
    manual: str = ""


SPECS = {
    "cifar10": TfdsSpec(
        "cifar10",
        ("train",),
        (32, 32, 3),
        lambda image: upright_square(image, 32),
        labelled=True,
    ),
    # TFDS has already swapped the column-major planes of the binary file.
    "stl10": TfdsSpec(
        "stl10", ("unlabelled",), (96, 96, 3), lambda image: halve(upright_square(image, 96))
    ),
    "celeba": TfdsSpec("celeb_a", ("train", "validation", "test"), (218, 178, 3), celeba_image),
    # TFDS stores the files of the archive, but 22 CMYK ones and one PNG as JPEGs that it made of
    # them.
    "imagenet": TfdsSpec(
        "imagenet2012",
        ("train",),
        None,
        imagenet_image,
        labelled=True,
        counts_classes=True,
        manual="ILSVRC2012_img_train.tar",
    ),
}


def open_tfds(request: Request) -> ImageSource:
    """Opens a route: see `open_converted`, and `read_labels` of a labelled data set.

    Raises:
        UserError: as these do; or there are not as many classes as expected.
    """
    spec = SPECS[request.name]
    target = request.folder / f"{request.name}.tfds.npy"
    images, sidecar = open_converted(
        spec, target, request.image_shape, request.count, request.advice
    )
    more = {"builder": sidecar["builder"], "order": sidecar["order"]}
    if spec.counts_classes:
        request.check_counts(target, len(images), sidecar["classes"])
        more["classes"] = sidecar["classes"]
    labels = (
        functools.partial(read_labels, spec, target, images, request.advice)
        if spec.labelled
        else None
    )
    return request.source(images, (target,), labels=labels, **more)


def open_converted(
    spec: TfdsSpec, target: Path, image_shape: tuple[int, int, int], count: int, advice: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """Maps the converted images, converting (and, if need be, downloading) them first.

    The file is used only together with its sidecar `<target>.json`, written last, and only if that
    describes this very conversion. TFDS keeps its own files in its default folder, or in that of
    the environment variable TFDS_DATA_DIR; what lies prepared there is used without the network.

    Args:
        spec: the data set.
        target: the `.npy` file to use or to write.
        image_shape: (height, width, channels) of the training images.
        count: the number of images there must be.
        advice: another way to the data; ends the error messages.

    Returns:
        Read-only uint8 `[count, H, W, C]`, and the sidecar's contents: `builder` (name:version),
        `name`, `splits`, `order`, `images`, `bytes`, and `classes` and `labels_sha256` of those
        that have them.

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


def read_labels(spec: TfdsSpec, target: Path, images: np.ndarray, advice: str) -> np.ndarray:
    """Reads the labels of a conversion, which are taken from TFDS first if it has none.

    Args:
        spec: the data set, a labelled one.
        target: see `open_converted`.
        images: what that returned.
        advice: another way to the data; ends the error messages.

    Returns:
        int64 `[N]`, in the order of the images: TFDS's numbers of the classes, or, with
        `counts_classes`, the places of the classes among those that occur.

    Raises:
        UserError: TFDS is missing, or its data are not those that were converted.
    """
    labels = _stored_labels(spec, target, len(images))
    if labels is None:
        _LOG.info("%s: taking the labels from tensorflow-datasets, once", target)
        with _explained(target, advice), _lock(target):
            labels = _stored_labels(spec, target, len(images))
            if labels is None:
                labels = _add_labels(spec, target, images, advice)
    return labels


def _labels_path(target: Path) -> Path:
    return target.with_suffix(".labels.npy")


def _stored_labels(spec: TfdsSpec, target: Path, count: int) -> np.ndarray | None:
    """Returns the labels that belong to the converted images, or None if there are none."""
    sidecar = _read_sidecar(spec, target) or {}
    if "labels_sha256" not in sidecar:
        return None
    labels = np.empty(count, np.int64)
    try:
        read_into(_labels_path(target), labels, "")
    except UserError as error:
        _LOG.warning("%s", error)
        return None
    if _sha256(labels) != sidecar["labels_sha256"]:
        _LOG.warning("%s: not the labels of the images beside it", _labels_path(target))
        return None
    return labels


def _sha256(labels: np.ndarray) -> str:
    return hashlib.sha256(labels.tobytes()).hexdigest()


def _write_labels(spec: TfdsSpec, target: Path, parts: list[np.ndarray]) -> dict[str, Any]:
    """Writes the labels, int64 [n] each; returns what the sidecar says of them."""
    labels = np.concatenate(parts).astype(np.int64)
    found: dict[str, Any] = {}
    if spec.counts_classes:
        classes, labels = np.unique(labels, return_inverse=True)
        found["classes"] = len(classes)
    with atomic_write(_labels_path(target), "wb") as file:
        np.save(file, labels.astype(np.int64))
    return {**found, "labels_sha256": _sha256(labels.astype(np.int64))}


def _add_labels(spec: TfdsSpec, target: Path, images: np.ndarray, advice: str) -> np.ndarray:
    """Writes the labels of images that were converted without, and says so in the sidecar.

    That TFDS has these very images is checked by one in each batch.
    """
    sidecar = _read_sidecar(spec, target)
    builder = _prepared_builder(spec, advice)
    if sidecar is None or sidecar["builder"] != _version(spec, builder):
        raise _other(spec, target, builder)
    make, parts, number = _maker(spec), [], 0
    for batch in _encoded_batches(spec, builder):
        try:
            first = make(batch["image"][0])
        except DECODER_ERRORS as error:
            raise _unreadable(spec, builder, error, number) from error
        if number >= len(images) or not np.array_equal(first, images[number]):
            raise _other(spec, target, builder)
        parts.append(batch["label"])
        number += len(batch["label"])
    if number != len(images):
        raise _other(spec, target, builder)
    _write_sidecar(target, {**sidecar, **_write_labels(spec, target, parts)})
    labels = _stored_labels(spec, target, len(images))
    if labels is None:
        raise UserError(f"{_labels_path(target)}: changed while it was written. {advice}")
    return labels


def _other(spec: TfdsSpec, target: Path, builder: Any) -> UserError:
    """Returns the error to raise where TFDS has other images than the converted ones."""
    return UserError(
        f"{target}: has no labels, and tensorflow-datasets has other images by now "
        f"({_version(spec, builder)} at {builder.data_path}), so they cannot be added. Delete "
        f"{target} to convert it anew."
    )


def _version(spec: TfdsSpec, builder: Any) -> str:
    return f"{spec.builder}:{builder.version}"


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
    if spec.counts_classes and isinstance(found, dict) and type(found.get("classes")) is not int:
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
            f"tensorflow-datasets has {stored:,} images of {spec.builder} "
            f"({', '.join(spec.splits)}) at {builder.data_path}, expected {count:,}. "
            f"Delete that folder to prepare it anew, or for a subset say --set "
            f"expected_images={stored}. {advice}"
        )
    _sidecar(target).unlink(missing_ok=True)
    labels: list[np.ndarray] = []
    _write_images(target, image_shape, _images(spec, builder, labels), count)
    found = {
        **_description(spec),
        "builder": _version(spec, builder),
        "images": count,
        "bytes": target.stat().st_size,
        **(_write_labels(spec, target, labels) if spec.labelled else {}),
    }
    _write_sidecar(target, found)
    return found


def _write_sidecar(target: Path, found: dict[str, Any]) -> None:
    with atomic_write(_sidecar(target)) as file:
        json.dump(found, file, indent=2)


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


def _maker(spec: TfdsSpec) -> Callable[[bytes], np.ndarray]:
    """Returns what makes the training image from a stored file."""
    stored_size = spec.stored_shape[:2] if spec.stored_shape else None
    return functools.partial(decode, prepare=spec.prepare, stored_size=stored_size)


def _images(spec: TfdsSpec, builder: Any, labels: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields uint8 [n, H, W, C] batches of training images, in stored order.

    Args:
        spec: the data set.
        builder: its TFDS builder.
        labels: is filled with the labels, int64 [n] each, if the data set is labelled.
    """
    number = 0
    make = _maker(spec)
    with ThreadPoolExecutor() as pool:
        for batch in _encoded_batches(spec, builder):
            if spec.labelled:
                labels.append(batch["label"])
            images = pool.map(make, batch["image"])
            prepared: list[np.ndarray] = []
            try:
                prepared.extend(images)
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
    """Returns the error to raise; `number` counts the stored images from 0."""
    image = "" if number is None else f" (image {number:,}, counted from 0)"
    return UserError(
        f"tensorflow-datasets' {spec.builder} at {builder.data_path}{image} cannot be read "
        f"({type(error).__name__}: {error}). Delete that folder to prepare it anew."
    )


def _write_images(
    target: Path, image_shape: tuple[int, int, int], batches: Iterator[np.ndarray], count: int
) -> None:
    """Writes `count` images as a .npy file, a batch at a time."""
    with (
        write_array(target, image_shape) as array,
        tqdm(total=count, desc=target.name, unit="image") as progress,
    ):
        for batch in batches:
            array.append(batch)
            progress.update(len(batch))
        if array.count != count:
            raise UserError(f"tensorflow-datasets gave {array.count:,} of {count:,} images")


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
