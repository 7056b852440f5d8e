"""What every network that turns images into features has in common."""

import abc
import copy
import platform
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import keras
import numpy as np
import scipy
import tensorflow as tf

from common import graph_optimizers


def resize_bilinear_tf1(images: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes as TensorFlow 1's `resize_bilinear` did by default.

    Output pixel `i` is read at `i * in / out`: corners are not aligned, pixel centres are not
    taken into account and nothing is antialiased (specification, section 6).

    Args:
        images: Float tensor `[n, height, width, channels]`, any range.
        size: Height and width of the result, in pixels.

    Returns:
        float32 tensor `[n, size, size, channels]`, in the range of the input.
    """
    return tf.raw_ops.ResizeBilinear(
        images=images, size=[size, size], align_corners=False, half_pixel_centers=False
    )


def resize_bilinear(images: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes bilinearly with half-pixel centres, not antialiased, as PyTorch's `interpolate`.

    Args:
        images: Float tensor `[n, height, width, channels]`, any range.
        size: Height and width of the result, in pixels.

    Returns:
        float32 tensor `[n, size, size, channels]`, in the range of the input.
    """
    return tf.raw_ops.ResizeBilinear(
        images=images, size=[size, size], align_corners=False, half_pixel_centers=True
    )


_Network = TypeVar("_Network", bound="FeatureNetwork")

# By what a network's record says of it.
RESIZES: dict[str, Callable[[tf.Tensor, int], tf.Tensor]] = {
    "TF1 bilinear": resize_bilinear_tf1,
    "bilinear": resize_bilinear,
}


def software_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that metrics are computed with."""
    packages = (tf, keras, np, scipy)
    versions = {package.__name__: package.__version__ for package in packages}
    return {"python": platform.python_version(), **versions}


class FeatureNetwork(abc.ABC):
    """A fixed classifier whose features and logits the metrics are computed from.

    Resizing and network are compiled together, once for every batch and image size.

    Attributes:
        name: What the network is asked for by, for example `"inception"`.
        column_prefix: Put before every column name. Empty for Inception alone: a value computed
            with another network must not appear under the name of the published one.
        input_size: Height and width that images are resized to, in pixels.
        num_features: Length of a feature vector.
        num_classes: Number of logits, all of which count in the Inception Score.
        provenance: JSON-able record of `name`, `sha256` (of the weights), `resize`,
            `files` and `versions`; a network with a choice of logits adds `logits`.
    """

    name: ClassVar[str]
    column_prefix: ClassVar[str]
    input_size: ClassVar[int]
    num_features: ClassVar[int]
    num_classes: ClassVar[int]

    def __init__(self, sha256: str, files: dict[str, str]) -> None:
        """Records where the weights come from and prepares the compiled call.

        Args:
            sha256: Digest of the weights, which tells two networks of one name apart.
            files: File name to SHA-256 of what was read.
        """
        self.provenance: dict[str, Any] = {
            "name": self.name,
            "sha256": sha256,
            "files": files,
            "versions": software_versions(),
        }
        self._set_resize("TF1 bilinear")

    def resized(self: _Network, resize: str) -> _Network:
        """Returns the same network, weights shared, that resizes in a way of `RESIZES`."""
        other = copy.copy(self)
        other._set_resize(resize)
        return other

    def _set_resize(self, resize: str) -> None:
        description = f"{resize} to {self.input_size}x{self.input_size}"
        self.provenance = {**self.provenance, "resize": description}
        self._resize = RESIZES[resize]
        # A fixed signature: neither a smaller last batch nor another image size traces again.
        self._compiled = tf.function(
            self._resize_and_embed,
            input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, "images")],
        )

    def __call__(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes features and logits.

        Args:
            images: float32 `[n, height, width, 3]` in [-1, 1], RGB.

        Returns:
            Features, float32 `[n, num_features]`, and logits, float32 `[n, num_classes]`.
        """
        with graph_optimizers.unrestrained():
            return self._compiled(images)

    @abc.abstractmethod
    def embed(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The network itself, traced into the compiled call.

        Args:
            images: float32 `[n, input_size, input_size, 3]` in [-1, 1].

        Returns:
            Features `[n, num_features]` and logits `[n, num_classes]`, float32.
        """

    def _resize_and_embed(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self.embed(self._resize(images, self.input_size))
