"""What every network that turns images into features has in common."""

import abc
import copy
import platform
from typing import Any, ClassVar, TypeVar

import keras
import numpy as np
import scipy
import tensorflow as tf

from common import graph_optimizers
from common.errors import UserError
from common.metrics.protocols import PROTOCOLS, RESIZES, Protocol


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
    num_classes: int

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

    def serving(self: _Network, protocol: Protocol, resize: str) -> _Network:
        """Returns the network as a protocol has it, weights shared; itself if that is as it is.

        Args:
            protocol: How the numbers are made.
            resize: `score_resize` or `distance_resize` of the protocol.

        Raises:
            UserError: It cannot serve the protocol.
        """
        network = self.with_logits_of(protocol)
        if not RESIZES[resize].in_network or resize == network._resize_name:
            return network
        return network.resized(resize)

    def with_logits_of(self: _Network, protocol: Protocol) -> _Network:
        """Returns the network with the logits that a protocol counts.

        Raises:
            UserError: It cannot give them.
        """
        if not protocol.any_network:
            known = ", ".join(name for name, row in PROTOCOLS.items() if row.any_network)
            raise UserError(
                f"the network {self.name} knows no protocol but {known}; choose the network "
                "inception"
            )
        return self

    def resized(self: _Network, resize: str) -> _Network:
        """Returns the same network, weights shared, that resizes in a way of `RESIZES`."""
        other = copy.copy(self)
        other._set_resize(resize)
        return other

    def _set_resize(self, resize: str) -> None:
        self._resize_name = resize
        description = f"{resize} to {self.input_size}x{self.input_size}"
        self.provenance = {**self.provenance, "resize": description}
        self._resize = RESIZES[resize].function
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
