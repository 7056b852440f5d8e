"""Data sets in one `.npy` file."""

from common.data.dataset import Request
from common.data.source import ImageSource
from common.parsers.npy import map_images


def open_npy(request: Request) -> ImageSource:
    """Opens a route: the file at the data set's place, memory-mapped; it has no labels.

    Raises:
        UserError: the file is missing or not as the row says.
    """
    path = request.existing()
    images = map_images(path, request.image_shape, request.count, request.advice)
    return request.source(images, (path,))
