"""The data sets (specification, section 5), each a row, behind one interface, `ImageSource`.

Importing this opens nothing: the openers are imported when they are called.
"""

import dataclasses
import logging
from pathlib import Path

from common.choices import Choices, Lazy
from common.data.dataset import Dataset, Place, Request
from common.data.source import ArraySource, ImageSource
from common.errors import UserError

__all__ = ["DATASETS", "ArraySource", "Dataset", "ImageSource", "Place", "Request", "open_source"]

_LOG = logging.getLogger(__name__)

_NPY = Lazy("common.data.array_file:open_npy")
_TFDS = Lazy("common.data.tfds_route:open_tfds")

_RUN_PREPROCESS = (
    "make it by dataset_preprocess/{folder}/preprocess.py --output={{path}}, or let "
    "tensorflow-datasets download the images (route tfds)."
)

DATASETS = Choices(
    "dataset",
    Dataset,
    {
        "cifar10": Dataset(
            routes={"archive": Lazy("common.data.cifar10:open_archive"), "tfds": _TFDS},
            image_shape=(32, 32, 3),
            count=50_000,
            count_may_differ=True,  # of the archive: its checksum rules out an accident
            classes=10,
            place=Place(
                folder="CIFAR10",
                files=("cifar-10-python.tar.gz",),
                how='put the "CIFAR-10 python version" archive from https://www.cs.toronto.edu/'
                "~kriz/cifar.html at {path}, or let tensorflow-datasets download the images "
                "(route tfds).",
            ),
        ),
        "stl10": Dataset(
            routes={"npy": _NPY, "tfds": _TFDS},
            image_shape=(48, 48, 3),
            count=100_000,
            place=Place(
                folder="STL10",
                files=("stl10.npy", "cifar-10-stl10.npy"),  # the second: the original README's name
                how=_RUN_PREPROCESS.format(folder="STL10"),
            ),
        ),
        "celeba": Dataset(
            routes={"npy": _NPY, "tfds": _TFDS},
            image_shape=(64, 64, 3),
            count=202_599,
            place=Place(
                folder="CelebA",
                files=("celeba.npy",),
                how=_RUN_PREPROCESS.format(folder="CelebA"),
            ),
        ),
        "imagenet": Dataset(
            routes={"npy": Lazy("common.data.folder:open_folder"), "tfds": _TFDS},
            image_shape=(128, 128, 3),
            count=1_281_167,
            classes=1_000,
            class_subsets=True,
            real_with_replacement=True,  # as the original
            place=Place(
                folder="imagenet",
                files=("ILSVRC2012",),
                how="make it by dataset_preprocess/ImageNet/preprocess.py --output={path}, or let "
                "tensorflow-datasets prepare the images from the original archive (route tfds).",
                is_folder=True,
            ),
        ),
        "digits": Dataset(
            routes={"sklearn": Lazy("common.data.digits:open_sklearn")},
            image_shape=(32, 32, 3),
            count=1_797,
            classes=10,
            feature_network="digits",
        ),
    },
)


def open_source(
    name: str,
    data_dir: Path,
    route: str = "auto",
    expected_images: int | None = None,
    expected_classes: int | None = None,
) -> ImageSource:
    """Opens a data set.

    Args:
        name: one of `DATASETS`, or the import path of a user's own row.
        data_dir: the folder that holds `CIFAR10/`, `STL10/`, `CelebA/` and `imagenet/`.
        route: `archive` (CIFAR10's), `npy` (STL10's, CelebA's and ImageNet's), `tfds`, `sklearn`
            (digits'), or `auto`: the file or folder if it is at its place, else
            tensorflow-datasets.
        expected_images: the number of images if the data set is deliberately not the whole one.
            Without it the number must be the genuine one; CIFAR10's archive alone, whose checksum
            rules out an accident, may differ and is warned about.
        expected_classes: likewise the number of classes, for ImageNet only.

    Returns:
        The images, uint8 `[H, W, C]` each, RGB, and labels where the data set has them.

    Raises:
        UserError: an unknown name or route, a file that is missing or not as it should be, a
            download that failed. The message says what was looked for and how to get it.
    """
    dataset = DATASETS[name]
    routes = ("auto", *dataset.routes)
    if route not in routes:
        raise UserError(f"unknown route {route!r} for {name}; there are: {', '.join(routes)}")
    counts = {"expected_images": expected_images, "expected_classes": expected_classes}
    for option, value in counts.items():
        if value is not None and value < 1:
            raise UserError(f"{option} is {value}; it must be at least 1")
    if expected_classes is not None and not dataset.class_subsets:
        raise UserError(
            f"expected_classes is {expected_classes}, but a subset of {name} has the classes of "
            "the whole; leave it out"
        )
    request = Request(name, dataset, route, Path(data_dir), **counts)
    if route == "auto":
        request = dataclasses.replace(request, route=_choose(request))
    source = _open(request)
    _check(source, request)
    source.real_with_replacement = dataset.real_with_replacement
    return source


def _open(request: Request) -> ImageSource:
    """Opens by the request's route."""
    try:
        return request.dataset.routes[request.route](request)
    except Exception as error:
        if isinstance(error, UserError) or ":" not in request.name:
            raise
        # Whatever a user's own function raises: the sentence is for who wrote it.
        raise UserError(
            f"dataset={request.name}: its route {request.route!r} fails ({type(error).__name__}: "
            f"{error}); it was to look into {request.data_dir}."
        ) from error


def _choose(request: Request) -> str:
    """Resolves the route `auto`."""
    place = request.dataset.place
    route, *fallback = request.dataset.routes
    if not fallback or place is None or request.path:
        return route
    _LOG.info(
        "%s: no %s, so route %s is used", request.name, request.folder / place.files[0], fallback[0]
    )
    return fallback[0]


def _check(source: ImageSource, request: Request) -> None:
    """Raises a UserError unless the source is what its row says; see `Dataset`."""
    what, row = f"data set {request.name}", request.dataset
    if not isinstance(source, ImageSource):
        raise UserError(
            f"{what}: the opener of route {request.route} returns an object of type "
            f"{type(source).__name__}, where a common.data.ImageSource is needed"
        )
    if row.image_shape not in (None, tuple(source.image_shape)):
        raise UserError(
            f"{what}: its images are {list(source.image_shape)}, and its row says "
            f"{list(row.image_shape or ())}"
        )
    if source.classes != request.classes:
        raise UserError(f"{what}: found {source.classes} classes, expected {request.classes}")
    expected = row.count if request.expected_images is None else request.expected_images
    if expected not in (None, len(source)):
        message = f"{what}: found {len(source):,} images, expected {expected:,}"
        if request.expected_images is not None or not row.count_may_differ:
            subset = f"for a subset say --set expected_images={len(source)}"
            raise UserError(f"{message}; {subset}. {request.advice}")
        _LOG.warning("%s: THIS IS NOT THE WHOLE DATA SET", message)
