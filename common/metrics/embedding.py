"""Images through a feature network, batch after batch."""

import logging
import time
import typing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from common import graph_optimizers
from common.metrics.feature_network import FeatureNetwork
from common.metrics.network_inputs import check_samples, network_inputs
from common.metrics.protocols import Protocol

logger = logging.getLogger(__name__)

# From images to features and logits.
Embed = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class ImageSet(typing.Protocol):
    """Images by number: an `ImageSource`, or what a generator makes.

    Attributes:
        name: For messages.
        record: JSON-able description.
    """

    @property
    def name(self) -> str: ...

    @property
    def record(self) -> dict[str, Any]: ...

    def __len__(self) -> int: ...

    def read(self, indices: np.ndarray) -> Any:
        """Images of int64 numbers: uint8 `[n, H, W, 3]` in 0..255, or floats in [-1, 1]."""


class Embedder:
    """A feature network as a protocol uses it.

    Args:
        network: The feature network.
        protocol: How the numbers are made.
        resize: `score_resize` or `distance_resize` of the protocol.
        batch_size: Number of images that go through the network at a time.
        spread: Makes of the network a function that shares out its batches over devices.

    Attributes:
        network: The network with the protocol's logits and resize.

    Raises:
        UserError: The network cannot serve the protocol.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        protocol: Protocol,
        resize: str,
        batch_size: int,
        spread: Callable[[FeatureNetwork], Embed] | None = None,
    ) -> None:
        """Prepares the network; nothing is computed yet."""
        self.network = network.serving(protocol, resize)
        self.batch_size = batch_size
        self._protocol = protocol
        self._resize = resize
        self._embed: Embed = spread(self.network) if spread else self.network

    def batches(
        self, images: ImageSet, indices: np.ndarray, what: str
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields features and logits of images, in order.

        There is a progress bar, and a log line at the end.

        Args:
            images: The set.
            indices: int64 numbers of the images.
            what: They are, for people.

        Yields:
            float32 `[n, num_features]` and `[n, num_classes]` of each batch.

        Raises:
            InvalidSamplesError: A generated image is NaN or outside [-1, 1].
            UserError: An image is unusable.
        """
        began = time.perf_counter()
        title = f"{self.network.name}: {what}"
        total = len(indices)
        with tqdm(total=total, desc=title, unit="images", mininterval=1.0) as progress:
            for start in range(0, total, self.batch_size):
                numbers = indices[start : start + self.batch_size]
                inputs = self._inputs(images.read(numbers), start, len(numbers))
                with graph_optimizers.unrestrained():
                    features, logits = self._embed(inputs)
                yield features.numpy(), logits.numpy()
                progress.update(len(numbers))
        seconds = time.perf_counter() - began
        logger.info("%s: %d in %.1f s, %.1f images/s", title, total, seconds, total / seconds)

    def _inputs(self, images: Any, start: int, count: int) -> tf.Tensor:
        if images.dtype != np.uint8:
            images = check_samples(images, start, (count, None, None, 3))
        return network_inputs(images, self._protocol, self._resize, self.network.input_size)
