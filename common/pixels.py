"""Pixels as uint8 and as the networks see them (specification, section 5)."""

import numpy as np
import tensorflow as tf


def scale_pixels(pixels: np.ndarray | tf.Tensor, dtype: str | tf.DType = "float32") -> tf.Tensor:
    """uint8 0..255 of any shape to [-1, 1]: `x / 255 * 2 - 1`, a tensor of `dtype`."""
    return tf.cast(pixels, dtype) / 255 * 2 - 1


def to_uint8(images: np.ndarray | tf.Tensor) -> np.ndarray:
    """Images in [-1, 1], any float dtype, as a uint8 array: -1 becomes 0 and 1 becomes 255."""
    return np.rint((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)
