"""Evaluates a generator: one pass over its samples feeds every metric."""

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from common.data.source import ImageSource
from common.errors import UserError
from common.metrics.cache import Arrays, cache_folder, key_digest, load_or_compute
from common.metrics.errors import InvalidSamplesError
from common.metrics.feature_network import FeatureNetwork
from common.metrics.frechet import (
    FrechetInceptionDistance,
    GaussianAccumulator,
    GaussianStatistics,
)
from common.metrics.inception_score import InceptionScore
from common.pixels import scale_pixels

logger = logging.getLogger(__name__)

CACHE_SUBFOLDER = "fid_statistics"
# Part of the cache's key: change it whenever the arrays or their meaning change.
_STATISTICS_FORMAT = 1


class Metric(Protocol):
    """A running computation over the features and logits of the first samples.

    Attributes:
        columns: Names of the results, without a network's prefix.
        num_samples: Number of samples that are to be added.
    """

    columns: tuple[str, ...]
    num_samples: int

    def update(self, features: np.ndarray, logits: np.ndarray) -> None:
        """Adds float32 `[n, num_features]` and `[n, num_classes]` of the next samples."""

    def result(self) -> dict[str, float]:
        """Returns a value for each column."""


@dataclass(frozen=True)
class MetricDeclaration:
    """How an evaluator makes a metric.

    Attributes:
        columns: Names of the results, without a network's prefix.
        build: Makes an empty metric for one evaluation.
        uses_real_images: Whether it needs the statistics of the real images.
    """

    columns: tuple[str, ...]
    build: Callable[["Evaluator"], Metric]
    uses_real_images: bool


# In the order of the columns. A metric from the same features needs one more entry here.
METRICS: dict[str, MetricDeclaration] = {
    "is": MetricDeclaration(
        InceptionScore.columns,
        lambda evaluator: InceptionScore(
            evaluator.is_samples, evaluator.network.num_classes, evaluator.splits
        ),
        uses_real_images=False,
    ),
    "fid": MetricDeclaration(
        FrechetInceptionDistance.columns,
        lambda evaluator: FrechetInceptionDistance(
            evaluator.real_statistics, evaluator.fid_samples
        ),
        uses_real_images=True,
    ),
}


def select_real_images(
    total: int, count: int, run_seed: int, with_replacement: bool = False
) -> np.ndarray:
    """Draws the real images that a run's FID is measured against.

    They depend on the arguments alone, by a counter-based generator of their own.

    Args:
        total: Number of images in the set.
        count: Number of images wanted.
        run_seed: The run's seed.
        with_replacement: Whether an image may be drawn several times.

    Returns:
        int64 indices, sorted. Without replacement they are different, and all of them if there are
        no more than `count`.
    """
    if total <= count and not with_replacement:
        return np.arange(total, dtype=np.int64)
    digest = hashlib.sha256(f"real images of the FID/{run_seed}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "big")))
    return np.sort(generator.choice(total, count, replace=with_replacement)).astype(np.int64)


@tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)])
def _in_range(images: tf.Tensor) -> tf.Tensor:
    """Tells for each image whether all its values are in [-1, 1]; NaN is not."""
    return tf.reduce_all(tf.abs(images) <= 1, axis=[1, 2, 3])


def check_samples(images: Any, start: int, shape: Sequence[int]) -> tf.Tensor:
    """Checks generated images.

    Args:
        images: Float `[count, height, width, 3]`.
        start: Number of the first image, for messages.
        shape: Expected shape.

    Returns:
        The images, float32.

    Raises:
        InvalidSamplesError: A value is NaN or outside [-1, 1].
        ValueError: The shape is not the expected one.
    """
    images = tf.cast(images, tf.float32)
    if tuple(images.shape) != tuple(shape):
        raise ValueError(f"samples of shape {tuple(images.shape)} instead of {tuple(shape)}")
    bad = np.flatnonzero(~_in_range(images).numpy())
    if len(bad):
        breaks = np.flatnonzero(np.diff(bad) > 1)
        first, last = bad[0], bad[breaks[0] if len(breaks) else -1]
        raise InvalidSamplesError(
            f"samples {start + first} to {start + last} hold NaN or values outside [-1, 1]; "
            "the training has probably diverged: try smaller learning rates"
        )
    return images


class Evaluator:
    """Computes the metrics of a generator, again and again, against the same real images.

    Attributes:
        network: The feature network.
        source: The real images.
        columns: Names of the values that `evaluate` returns, in order.
        record: JSON-able description of network, data, numbers of images and selection.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        source: ImageSource,
        *,
        run_seed: int,
        is_samples: int = 50_000,
        fid_samples: int = 10_000,
        fid_real: int = 5_000,
        splits: int = 10,
        batch_size: int = 64,
        cache_dir: str | os.PathLike | None = None,
        metrics: Sequence[str] = tuple(METRICS),
        with_replacement: bool = False,
        embed: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]] | None = None,
    ) -> None:
        """Checks the choices; nothing is computed yet.

        Args:
            network: The feature network.
            source: The real images, RGB.
            run_seed: Seed of the selection of real images.
            is_samples: Number of samples for the Inception Score.
            fid_samples: Number of samples, the first of those, for the FID.
            fid_real: Number of real images for the FID.
            splits: Number of splits of the Inception Score.
            batch_size: Number of images that go through the network at a time.
            cache_dir: Root of the cache for real statistics; None for Keras' own.
            with_replacement: Whether real images are drawn with replacement, as the original does
                for ImageNet.
            embed: How to call the network, by default the network itself; on several devices, a
                function that shares out its batches.
            metrics: Names from `METRICS`, in any order: the columns have that of the table.

        Raises:
            UserError: A choice makes no sense.
        """
        least = {
            "splits": (splits, 1),
            "is_samples": (is_samples, splits),
            "fid_samples": (fid_samples, 2),
            "fid_real": (fid_real, 2),
            "batch_size": (batch_size, 1),
        }
        _check_choices(metrics, source, least)
        self.network = network
        self._embed = embed or network
        self.source = source
        self.is_samples = is_samples
        self.fid_samples = fid_samples
        self.splits = splits
        self._batch_size = batch_size
        self._cache_dir = cache_dir
        self._declarations = [METRICS[name] for name in METRICS if name in metrics]
        self._indices = select_real_images(len(source), fid_real, run_seed, with_replacement)
        self._statistics: GaussianStatistics | None = None
        self._key = self._statistics_key(run_seed, with_replacement)
        self.columns = [
            network.column_prefix + column
            for declaration in self._declarations
            for column in declaration.columns
        ]
        self.record = {
            "network": network.provenance,
            "real": self._key,
            "is_samples": is_samples,
            "fid_samples": fid_samples,
            "splits": splits,
        }

    @property
    def real_statistics(self) -> GaussianStatistics:
        """Statistics of the real images; `prepare` is called if it has not been."""
        self.prepare()
        return self._statistics

    def prepare(self) -> None:
        """Computes the statistics of the real images, or reads them from the cache.

        Nothing happens if no metric chosen needs them, or if it has been done.

        Raises:
            NonFiniteFeaturesError: The network answered with NaN or infinity.
            UserError: The cache cannot be written.
        """
        needed = any(declaration.uses_real_images for declaration in self._declarations)
        if not needed or self._statistics is not None:
            return
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", f"{self.source.name}-{self.network.name}")
        folder = cache_folder(self._cache_dir, CACHE_SUBFOLDER)
        path = folder / f"{stem}-{key_digest(self._key)[:16]}.npz"
        arrays = load_or_compute(path, self._key, self._real_arrays)
        self._statistics = GaussianStatistics(
            arrays["mean"], arrays["covariance"], int(arrays["count"])
        )

    def evaluate(self, generate: Callable[[int, int], Any]) -> dict[str, float]:
        """Computes the metrics of a generator in one pass over its samples.

        Args:
            generate: Called as `generate(start, count)` for consecutive ranges; returns samples
                `start` to `start + count - 1`, float32 `[count, height, width, 3]` in
                [-1, 1], which are not rounded.

        Returns:
            A Python float for each of `columns`, in their order.

        Raises:
            InvalidSamplesError: A sample is NaN or outside [-1, 1].
            NonFiniteFeaturesError: The network answered with NaN or infinity.
        """
        metrics = [declaration.build(self) for declaration in self._declarations]
        total = max(metric.num_samples for metric in metrics)
        for start, stop in self._batches(total, "samples"):
            shape = (stop - start, *self.source.image_shape)
            images = check_samples(generate(start, stop - start), start, shape)
            features, logits = (output.numpy() for output in self._embed(images))
            for metric in metrics:
                wanted = max(metric.num_samples - start, 0)
                metric.update(features[:wanted], logits[:wanted])
        results: dict[str, float] = {}
        for metric in metrics:
            results |= metric.result()
        return {self.network.column_prefix + name: value for name, value in results.items()}

    def _statistics_key(self, run_seed: int, with_replacement: bool) -> dict[str, Any]:
        """Everything that the real statistics depend on."""
        total, count = len(self.source), len(self._indices)
        selection: dict[str, Any] = {"total": total, "count": count}
        if count < total or with_replacement:
            selection |= {"run_seed": run_seed, "replacement": with_replacement}
        provenance = self.network.provenance
        return {
            "format": _STATISTICS_FORMAT,
            "source": {"name": self.source.name, "record": self.source.record},
            "network": {name: provenance[name] for name in ("name", "sha256", "resize")},
            "selection": selection,
        }

    def _real_arrays(self) -> Arrays:
        accumulator = GaussianAccumulator(self.network.num_features)
        for start, stop in self._batches(len(self._indices), "real images"):
            images = scale_pixels(self.source.read(self._indices[start:stop]))
            features, _ = self._embed(tf.constant(images))
            accumulator.update(features.numpy())
        statistics = accumulator.statistics()
        return {
            "mean": statistics.mean,
            "covariance": statistics.covariance,
            "count": np.array(statistics.count),
        }

    def _batches(self, total: int, what: str) -> Iterator[tuple[int, int]]:
        """Yields `start, stop` of each batch, with a progress bar and a log line at the end."""
        began = time.perf_counter()
        title = f"{self.network.name}: {what}"
        with tqdm(total=total, desc=title, unit="images", mininterval=1.0) as progress:
            for start in range(0, total, self._batch_size):
                stop = min(start + self._batch_size, total)
                yield start, stop
                progress.update(stop - start)
        seconds = time.perf_counter() - began
        logger.info("%s: %d in %.1f s, %.1f images/s", title, total, seconds, total / seconds)


def _check_choices(metrics: Sequence[str], source: ImageSource, least: Mapping) -> None:
    """Checks names, images and, by name, pairs of a number and the least it may be."""
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics:
        raise UserError(f"unknown metrics {unknown}; choose some of {', '.join(METRICS)}")
    if tuple(source.image_shape)[2:] != (3,):
        raise UserError(
            f"data set {source.name} has images of shape {tuple(source.image_shape)}; "
            "the metrics need height, width and 3 colours"
        )
    if len(source) < 2:
        raise UserError(f"data set {source.name} has {len(source)} image(s); the FID needs 2")
    for name, (value, minimum) in least.items():
        if value < minimum:
            raise UserError(f"{name} is {value}; it must be at least {minimum}")
