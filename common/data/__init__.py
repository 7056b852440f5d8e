"""The data sets (specification, section 5), each behind one interface, `ImageSource`."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.data import arrays, cifar10, digits
from common.data.folder import FolderSource
from common.data.source import ArraySource, ImageSource
from common.errors import UserError

__all__ = ["DATASETS", "ArraySource", "FolderSource", "ImageSource", "open_source"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """One row of the table of data sets.

    Attributes:
        image_shape: (height, width, channels) of the training pictures.
        count: the number of pictures in the genuine data set.
        routes: the opener of every route, the one that needs no download first.
        folder: the folder below the data directory.
        files: the names the file may have there; the first is the one to be asked for.
        how: how to get the file.
        tfds: the name of the `TfdsSpec` in `common.data.tfds_route`.
        classes: the number of classes in the genuine data set, or None if they are not looked at.
            With classes, `files` are names of folders of class folders.
    """

    image_shape: tuple[int, int, int]
    count: int
    routes: dict[str, Callable[["_Request"], ImageSource]]
    folder: str = ""
    files: tuple[str, ...] = ()
    how: str = ""
    tfds: str = ""
    classes: int | None = None


@dataclass(frozen=True)
class _Request:
    """The arguments of `open_source`, checked."""

    name: str
    dataset: Dataset
    data_dir: Path
    expected_images: int | None
    expected_classes: int | None = None

    @property
    def classes(self) -> int | None:
        return self.dataset.classes if self.expected_classes is None else self.expected_classes

    @property
    def count(self) -> int:
        return self.dataset.count if self.expected_images is None else self.expected_images

    @property
    def folder(self) -> Path:
        return self.data_dir / self.dataset.folder

    @property
    def path(self) -> Path | None:
        """The data set's file, or folder of class folders, if it is there."""
        candidates = (self.folder / name for name in self.dataset.files)
        is_there = Path.is_file if self.dataset.classes is None else Path.is_dir
        return next(filter(is_there, candidates), None)

    @property
    def advice(self) -> str:
        """How to get the file or folder."""
        return f"To mend it: {self.dataset.how.format(path=self.folder / self.dataset.files[0])}"

    def check_counts(self, where: Path, images: int, classes: int) -> None:
        """Raises a UserError unless these are the numbers of pictures and classes to expect."""
        if (images, classes) != (self.count, self.classes):
            raise UserError(
                f"{where}: found {images:,} pictures in {classes:,} classes, expected "
                f"{self.count:,} in {self.classes:,}; for a subset say --set "
                f"expected_images={images} --set expected_classes={classes}. {self.advice}"
            )

    def source(
        self, route: str, images: np.ndarray, files: tuple[Path, ...] = (), **more: Any
    ) -> ArraySource:
        sizes = {path.relative_to(self.data_dir).as_posix(): path.stat().st_size for path in files}
        facts = {"dataset": self.name, "route": route, "files": sizes, "images": len(images)}
        return ArraySource(self.name, route, images, {**facts, **more})


def open_source(
    name: str,
    data_dir: Path,
    route: str = "auto",
    expected_images: int | None = None,
    expected_classes: int | None = None,
) -> ImageSource:
    """Opens a data set.

    Args:
        name: `cifar10`, `stl10`, `celeba`, `imagenet` or `digits`.
        data_dir: the folder that holds `CIFAR10/`, `STL10/`, `CelebA/` and `imagenet/`.
        route: `archive` (CIFAR10's), `npy` (STL10's, CelebA's and ImageNet's), `tfds`, `sklearn`
            (digits'), or `auto`: the file or folder if it is at its place, else
            tensorflow-datasets.
        expected_images: the number of pictures if the data set is deliberately not the whole one.
            Without it the number must be the genuine one; CIFAR10's archive alone, whose checksum
            rules out an accident, may differ and is warned about.
        expected_classes: likewise the number of classes, for ImageNet only.

    Returns:
        The pictures, uint8 `[H, W, C]` each, RGB.

    Raises:
        UserError: an unknown name or route, a file that is missing or not as it should be, a
            download that failed. The message says what was looked for and how to get it.
    """
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r}; there are: {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    routes = ("auto", *dataset.routes)
    if route not in routes:
        raise UserError(f"unknown route {route!r} for {name}; there are: {', '.join(routes)}")
    if expected_classes is not None and dataset.classes is None:
        raise UserError(
            f"expected_classes is {expected_classes}, but the classes of {name} are not looked at; "
            "leave it out"
        )
    for option, value in (
        ("expected_images", expected_images),
        ("expected_classes", expected_classes),
    ):
        if value is not None and value < 1:
            raise UserError(f"{option} is {value}; it must be at least 1")
    request = _Request(name, dataset, Path(data_dir), expected_images, expected_classes)
    return dataset.routes[_choose(request) if route == "auto" else route](request)


def _choose(request: _Request) -> str:
    """Resolves the route `auto`."""
    route, *fallback = request.dataset.routes
    if not fallback or request.path:
        return route
    wanted = request.folder / request.dataset.files[0]
    _LOG.info("%s: no %s, so tensorflow-datasets is used", request.name, wanted)
    return fallback[0]


def _existing(request: _Request) -> Path:
    if request.path is None:
        wanted = " or ".join(str(request.folder / name) for name in request.dataset.files)
        raise UserError(f"data set {request.name}: {wanted} not found. {request.advice}")
    return request.path


def _open_archive(request: _Request) -> ImageSource:
    path = _existing(request)
    images = cifar10.load_archive(path, request.advice)
    if len(images) != request.count:
        message = f"{path}: found {len(images):,} pictures, expected {request.count:,}"
        if request.expected_images is not None:
            raise UserError(f"{message}. {request.advice}")
        _LOG.warning("%s: THIS IS NOT THE WHOLE CIFAR10 TRAINING SET", message)
    return request.source("archive", images, (path,))


def _open_npy(request: _Request) -> ImageSource:
    path = _existing(request)
    images = arrays.map_images(path, request.dataset.image_shape, request.count, request.advice)
    return request.source("npy", images, (path,))


def _open_folder(request: _Request) -> ImageSource:
    path = _existing(request)
    source = FolderSource(request.name, path, request.dataset.image_shape, request.advice)
    request.check_counts(path, len(source), source.classes)
    return source


def _open_tfds(request: _Request) -> ImageSource:
    from common.data import tfds_route  # noqa: PLC0415 (fcntl: POSIX only, needed here only)

    spec = getattr(tfds_route, request.dataset.tfds)
    target = request.folder / f"{request.name}.tfds.npy"
    images, sidecar = tfds_route.open_converted(
        spec, target, request.dataset.image_shape, request.count, request.advice
    )
    more = {"builder": sidecar["builder"], "order": sidecar["order"]}
    if spec.labelled:
        request.check_counts(target, len(images), sidecar["classes"])
        more["classes"] = sidecar["classes"]
    return request.source("tfds", images, (target,), **more)


def _open_sklearn(request: _Request) -> ImageSource:
    if request.count != digits.COUNT:
        raise UserError(f"data set digits: has {digits.COUNT:,} pictures, not {request.count:,}")
    images, _ = digits.load_digits()
    return request.source("sklearn", images)


_RUN_PREPROCESS = (
    "make it by dataset_preprocess/{folder}/preprocess.py --output={{path}}, or let "
    "tensorflow-datasets download the pictures (route tfds)."
)

DATASETS = {
    "cifar10": Dataset(
        image_shape=cifar10.IMAGE_SHAPE,
        count=cifar10.COUNT,
        routes={"archive": _open_archive, "tfds": _open_tfds},
        folder="CIFAR10",
        files=("cifar-10-python.tar.gz",),
        how='put the "CIFAR-10 python version" archive from https://www.cs.toronto.edu/~kriz/'
        "cifar.html at {path}, or let tensorflow-datasets download the pictures (route tfds).",
        tfds="CIFAR10",
    ),
    "stl10": Dataset(
        image_shape=(48, 48, 3),
        count=100_000,
        routes={"npy": _open_npy, "tfds": _open_tfds},
        folder="STL10",
        files=("stl10.npy", "cifar-10-stl10.npy"),  # the second: the original README's name
        how=_RUN_PREPROCESS.format(folder="STL10"),
        tfds="STL10",
    ),
    "celeba": Dataset(
        image_shape=(64, 64, 3),
        count=202_599,
        routes={"npy": _open_npy, "tfds": _open_tfds},
        folder="CelebA",
        files=("celeba.npy",),
        how=_RUN_PREPROCESS.format(folder="CelebA"),
        tfds="CELEBA",
    ),
    "imagenet": Dataset(
        image_shape=(128, 128, 3),
        count=1_281_167,
        routes={"npy": _open_folder, "tfds": _open_tfds},
        folder="imagenet",
        files=("ILSVRC2012",),
        how="make it by dataset_preprocess/ImageNet/preprocess.py --output={path}, or let "
        "tensorflow-datasets prepare the pictures from the original archive (route tfds).",
        tfds="IMAGENET",
        classes=1_000,
    ),
    "digits": Dataset(
        image_shape=digits.IMAGE_SHAPE, count=digits.COUNT, routes={"sklearn": _open_sklearn}
    ),
}
