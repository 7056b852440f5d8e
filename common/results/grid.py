"""Sample grids: generated images side by side in one PNG (specification, section 7)."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from common.files import atomic_write
from common.pixels import to_uint8


def make_grid(images: np.ndarray | tf.Tensor, rows: int, columns: int) -> np.ndarray:
    """`[rows * columns, h, w, 3]` in [-1, 1], row by row, as uint8 `[rows * h, columns * w, 3]`.

    Raises:
        ValueError: the number of images is not `rows * columns`.
    """
    count, height, width, channels = images.shape
    if count != rows * columns:
        raise ValueError(f"{count} images do not fill a grid of {rows} x {columns}.")
    grid = to_uint8(images).reshape(rows, columns, height, width, channels)
    return grid.swapaxes(1, 2).reshape(rows * height, columns * width, channels)


def save_png(path: str | Path, pixels: np.ndarray) -> None:
    """Writes uint8 pixels `[h, w, 3]` as a PNG, complete or not at all."""
    with atomic_write(path, "wb") as file:
        Image.fromarray(pixels).save(file, format="PNG")
