"""The data sets (specification, section 5), each behind one interface, `ImageSource`."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.data import arrays, cifar10, digits
from common.data.source import ArraySource, ImageSource
from common.errors import UserError

__all__ = ["DATASETS", "ArraySource", "ImageSource", "open_source"]

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
    """

    image_shape: tuple[int, int, int]
    count: int
    routes: dict[str, Callable[["_Request"], ImageSource]]
    folder: str = ""
    files: tuple[str, ...] = ()
    how: str = ""
    tfds: str = ""


@dataclass(frozen=True)
class _Request:
    """The arguments of `open_source`, checked."""

    name: str
    dataset: Dataset
    data_dir: Path
    expected_images: int | None

    @property
    def count(self) -> int:
        return self.dataset.count if self.expected_images is None else self.expected_images

    @property
    def folder(self) -> Path:
        return self.data_dir / self.dataset.folder

    @property
    def path(self) -> Path | None:
        """The data set's file, if it is there."""
        candidates = (self.folder / name for name in self.dataset.files)
        return next((path for path in candidates if path.is_file()), None)

    @property
    def advice(self) -> str:
        """How to get the file."""
        return f"To mend it: {self.dataset.how.format(path=self.folder / self.dataset.files[0])}"

    def source(
        self, route: str, images: np.ndarray, files: tuple[Path, ...] = (), **more: Any
    ) -> ArraySource:
        sizes = {path.relative_to(self.data_dir).as_posix(): path.stat().st_size for path in files}
        record = {"dataset": self.name, "route": route, "files": sizes, "images": len(images)}
        return ArraySource(self.name, route, images, {**record, **more})


def open_source(
    name: str, data_dir: Path, route: str = "auto", expected_images: int | None = None
) -> ImageSource:
    """Opens a data set.

    Args:
        name: `cifar10`, `stl10`, `celeba` or `digits`.
        data_dir: the folder that holds `CIFAR10/`, `STL10/` and `CelebA/`.
        route: `archive` (CIFAR10's), `npy` (STL10's and CelebA's), `tfds`, `sklearn` (digits'), or
            `auto`: the file if it is at its place, else tensorflow-datasets.
        expected_images: the number of pictures if the data set is deliberately not the whole one.
            Without it the number must be the genuine one; CIFAR10's archive alone, whose checksum
            rules out an accident, may differ and is warned about.

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
    if expected_images is not None and expected_images < 1:
        raise UserError(f"expected_images is {expected_images}; it must be at least 1")
    request = _Request(name, dataset, Path(data_dir), expected_images)
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


def _open_tfds(request: _Request) -> ImageSource:
    from common.data import tfds_route  # noqa: PLC0415 (fcntl: POSIX only, needed here only)

    spec = getattr(tfds_route, request.dataset.tfds)
    target = request.folder / f"{request.name}.tfds.npy"
    images, sidecar = tfds_route.open_converted(
        spec, target, request.dataset.image_shape, request.count, request.advice
    )
    more = {"builder": sidecar["builder"], "order": sidecar["order"]}
    return request.source("tfds", images, (target,), **more)


def _open_sklearn(request: _Request) -> ImageSource:
    if request.count != digits.COUNT:
        raise UserError(f"data set digits: has {digits.COUNT:,} pictures, not {request.count:,}")
    images, _ = digits.load_digits()
    return request.source("sklearn", images)


_RUN_PREPROCESS = (
    "make {{path}} with dataset_preprocess/{folder}/preprocess.py (run it in its folder, then move "
    "its output there), or let tensorflow-datasets download the pictures (route tfds)."
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
    "digits": Dataset(
        image_shape=digits.IMAGE_SHAPE, count=digits.COUNT, routes={"sklearn": _open_sklearn}
    ),
}
