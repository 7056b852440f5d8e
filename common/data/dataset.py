"""A data set as a row: what is known of it, and how it is opened."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.data.source import ArraySource, ImageSource, Labels
from common.errors import UserError

ImageShape = tuple[int, int, int]
Opener = Callable[["Request"], ImageSource]


@dataclass(frozen=True)
class Place:
    """Where a data set's file, or folder of class folders, lies.

    Attributes:
        folder: the folder below the data directory.
        files: the names it may have there; the first is the one to be asked for.
        how: how to get it; `{path}` stands for its path.
        is_folder: whether it is a folder.
    """

    folder: str
    files: tuple[str, ...]
    how: str
    is_folder: bool = False


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One data set: a row of `common.data.DATASETS`, or a user's own.

    A user's own is a row in a module of the user's, say `my_data.py`:

        import numpy as np
        from common.data import Dataset, ImageSource, Request

        def open_birds(request: Request) -> ImageSource:
            images = np.load(request.data_dir / "birds.npy", mmap_mode="r")  # uint8 [N, H, W, 3]
            labels = np.load(request.data_dir / "birds_labels.npy")  # integers [N], 0..199
            return request.source(images, labels=labels)

        birds = Dataset(routes={"npy": open_birds}, classes=200)

    Its import path is its name, in the configuration and on the command line: `my_data:birds`.

    Attributes:
        routes: the opener of every route, the one that needs no download first. It is given the
            `Request`, and returns the images of the shape that the networks are to make.
        image_shape: (height, width, channels) of the images; None if any will do.
        count: the number of images in the whole data set; None if any will do.
        count_may_differ: whether another number is worth a warning only.
        classes: the number of classes, of one with labels; else None.
        class_subsets: whether a subset may have fewer classes (`expected_classes`).
        feature_network: the network behind the metrics, where none is asked for.
        real_with_replacement: whether metrics draw real images with replacement.
        place: where its file or folder lies, of one that is opened from there.

    Raises:
        UserError: there is no route.
    """

    routes: Mapping[str, Opener]
    image_shape: ImageShape | None = None
    count: int | None = None
    count_may_differ: bool = False
    classes: int | None = None
    class_subsets: bool = False
    feature_network: str = "inception"
    real_with_replacement: bool = False
    place: Place | None = None

    def __post_init__(self) -> None:
        if not self.routes:
            raise UserError("a Dataset without routes: give it the function that opens it")


@dataclass(frozen=True)
class Request:
    """What an opener is asked for.

    Attributes:
        name: the data set's name, as the configuration has it.
        dataset: its row.
        route: the opener's name among the row's `routes`.
        data_dir: the folder of the data sets.
        expected_images: the number of images, if the data set is deliberately not the whole one.
        expected_classes: likewise the number of classes.
    """

    name: str
    dataset: Dataset
    route: str
    data_dir: Path
    expected_images: int | None = None
    expected_classes: int | None = None

    @property
    def image_shape(self) -> ImageShape:
        """(height, width, channels) that the row declares."""
        if self.dataset.image_shape is None:
            raise UserError(f"data set {self.name}: its row declares no image_shape")
        return self.dataset.image_shape

    @property
    def count(self) -> int:
        """The number of images to expect."""
        count = self.dataset.count if self.expected_images is None else self.expected_images
        if count is None:
            raise UserError(f"data set {self.name}: its row declares no count")
        return count

    @property
    def classes(self) -> int | None:
        """The number of classes to expect; None of a data set without labels."""
        return self.dataset.classes if self.expected_classes is None else self.expected_classes

    @property
    def folder(self) -> Path:
        """The data set's folder."""
        return self.data_dir / self.dataset.place.folder if self.dataset.place else self.data_dir

    @property
    def path(self) -> Path | None:
        """The data set's file or folder, if it is there."""
        place = self.dataset.place
        if place is None:
            return None
        is_there = Path.is_dir if place.is_folder else Path.is_file
        return next(filter(is_there, (self.folder / name for name in place.files)), None)

    def existing(self) -> Path:
        """Returns the data set's file or folder; that there is none is a UserError."""
        path = self.path
        if path is None:
            names = self.dataset.place.files if self.dataset.place else ()
            wanted = " or ".join(str(self.folder / name) for name in names)
            raise UserError(f"data set {self.name}: {wanted} not found. {self.advice}")
        return path

    @property
    def advice(self) -> str:
        """How to get the file or folder; empty if it has no place."""
        place = self.dataset.place
        return f"To mend it: {place.how.format(path=self.folder / place.files[0])}" if place else ""

    def check_counts(self, where: Path, images: int, classes: int) -> None:
        """Raises a UserError unless these are the numbers of images and classes to expect."""
        if (images, classes) != (self.count, self.classes):
            raise UserError(
                f"{where}: found {images:,} images in {classes:,} classes, expected "
                f"{self.count:,} in {self.classes:,}; for a subset say --set "
                f"expected_images={images} --set expected_classes={classes}. {self.advice}"
            )

    def source(
        self,
        images: np.ndarray,
        files: tuple[Path, ...] = (),
        labels: Labels = None,
        **facts: Any,
    ) -> ArraySource:
        """Makes a source of an array.

        Args:
            images: uint8 `[N, H, W, C]`, RGB; in memory or memory-mapped.
            files: what it was read from: names and sizes become part of the description.
            labels: integers `[N]`, 0..classes-1 of the row's `classes`, or a function that
                returns them when they are first asked for.
            facts: further entries of the description, JSON-able.

        Raises:
            UserError: the labels are not as they should be.
        """
        sizes = {self._shown(path): path.stat().st_size for path in files}
        count = len(images)
        opened = {"dataset": self.name, "route": self.route, "files": sizes, "images": count}
        classes = None if labels is None else self.classes
        return ArraySource(
            self.name, self.route, images, {**opened, **facts}, labels=labels, classes=classes
        )

    def _shown(self, path: Path) -> str:
        inside = path.is_relative_to(self.data_dir)
        return (path.relative_to(self.data_dir) if inside else path).as_posix()
