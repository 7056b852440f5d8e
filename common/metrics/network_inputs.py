"""From images to what a feature network takes, by a protocol."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from common.errors import UserError
from common.metrics.errors import InvalidSamplesError
from common.metrics.protocols import PIXELS, RESIZES, Protocol
from common.pixels import scale_pixels


def network_inputs(images: Any, protocol: Protocol, resize: str, size: int) -> tf.Tensor:
    """Turns images into what the network takes.

    Args:
        images: uint8 `[n, H, W, 3]` in 0..255, or floats in [-1, 1].
        protocol: How the numbers are made.
        resize: `score_resize` or `distance_resize` of the protocol.
        size: Height and width that the network takes, in pixels.

    Returns:
        float32 `[n, H, W, 3]`, within [-1, 1]; `size` pixels a side if the resize is not one of
        those that the network does.

    Raises:
        UserError: The protocol resizes before the network what it leaves as floats.
    """
    if images.dtype != np.uint8:
        images = PIXELS[protocol.pixels](images)
    way = RESIZES[resize]
    if not way.in_network:
        if images.dtype != np.uint8:
            raise UserError(f"{resize} resizes uint8 images: choose other pixels in the protocol")
        images = way.function(images, size)
    if images.dtype != np.uint8:
        return tf.cast(images, tf.float32)
    if protocol.centre == 127.5:
        return scale_pixels(images)
    centre = np.float32(protocol.centre)
    return tf.constant((images.astype(np.float32) - centre) / centre)


def check_samples(images: Any, start: int, shape: Sequence[int | None]) -> tf.Tensor:
    """Checks generated images.

    Args:
        images: Float `[count, height, width, 3]`.
        start: Number of the first image, for messages.
        shape: Expected shape; None for a size that may be any.

    Returns:
        The images, float32.

    Raises:
        InvalidSamplesError: A value is NaN or outside [-1, 1].
        UserError: The shape is not the expected one.
    """
    images = tf.cast(images, tf.float32)
    found = tuple(images.shape)
    if len(found) != len(shape) or any(
        w not in (None, f) for f, w in zip(found, shape, strict=True)
    ):
        raise UserError(f"the generator gave images of shape {found} instead of {tuple(shape)}")
    bad = np.flatnonzero(~_in_range(images).numpy())
    if len(bad):
        breaks = np.flatnonzero(np.diff(bad) > 1)
        first, last = bad[0], bad[breaks[0] if len(breaks) else -1]
        raise InvalidSamplesError(
            f"samples {start + first} to {start + last} hold NaN or values outside [-1, 1]; "
            "the training has probably diverged: try smaller learning rates"
        )
    return images


@tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)])
def _in_range(images: tf.Tensor) -> tf.Tensor:
    """Tells for each image whether all its values are in [-1, 1]; NaN is not."""
    return tf.reduce_all(tf.abs(images) <= 1, axis=[1, 2, 3])


def unrounded(images: Any) -> Any:
    """Values in [-1, 1] as they are."""
    return images


def truncated(images: Any) -> np.ndarray:
    """uint8 of values in [-1, 1], `x * 127.5 + 128` without its fraction."""
    return np.clip(np.asarray(images) * 127.5 + 128, 0, 255).astype(np.uint8)


def resize_by_pil(images: np.ndarray, size: int) -> np.ndarray:
    """Resizes uint8 `[n, H, W, 3]` to `[n, size, size, 3]` as PIL does, bicubic, antialiased."""
    bicubic = Image.Resampling.BICUBIC
    resized = [Image.fromarray(image).resize((size, size), bicubic) for image in images]
    return np.stack([np.asarray(image) for image in resized])
