"""Evaluates a generator: one pass over its samples feeds every metric."""

import functools
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from common import graph_optimizers
from common.data.source import ImageSource
from common.errors import UserError
from common.metrics import kernel_distance, manifold
from common.metrics.cache import Arrays, cache_folder, key_digest, load_or_compute
from common.metrics.errors import InvalidSamplesError
from common.metrics.feature_network import FeatureNetwork
from common.metrics.feature_sets import FeatureBuffer, FeatureComparisons
from common.metrics.frechet import (
    FrechetInceptionDistance,
    GaussianAccumulator,
    GaussianStatistics,
)
from common.metrics.inception_score import InceptionScore
from common.metrics.metric import Metric
from common.metrics.selection import select_real_images
from common.pixels import scale_pixels

logger = logging.getLogger(__name__)

CACHE_SUBFOLDER = "fid_statistics"

IMAGES_PER_DEVICE = 32  # at a time; of 64, a run on CelebA takes 0.15 GB more

# Part of the cache's key: change it whenever the arrays or their meaning change.
_STATISTICS_FORMAT = 2


@dataclass(frozen=True)
class MetricDeclaration:
    """How an evaluator makes a metric: from a stream, or else from all features at once.

    Attributes:
        columns: Names of the results, without a network's prefix.
        uses_real_images: Whether it needs the real images.
        build: Makes an empty metric for one evaluation.
        compare: Called with a seed, real and fake features; returns values and details.
        least: Number of samples, and of real images, below which it is undefined.
    """

    columns: tuple[str, ...]
    uses_real_images: bool
    build: Callable[["Evaluator"], Metric] | None = None
    compare: Callable[[int, np.ndarray, np.ndarray], tuple[dict, dict]] | None = None
    least: int = 2


def _compare_kernels(seed: int, real: np.ndarray, fake: np.ndarray) -> tuple[dict, dict]:
    values = kernel_distance.kernel_inception_distance(real, fake, seed)
    return values, {"kid_subset_size": kernel_distance.subset_size_for(len(real), len(fake))}


def _compare_manifolds(seed: int, real: np.ndarray, fake: np.ndarray) -> tuple[dict, dict]:
    del seed
    return manifold.precision_recall_density_coverage(real, fake), {}


# In the order of the columns. A metric from the same features needs one more entry here.
METRICS: dict[str, MetricDeclaration] = {
    "is": MetricDeclaration(
        InceptionScore.columns,
        uses_real_images=False,
        build=lambda evaluator: InceptionScore(
            evaluator.is_samples, evaluator.network.num_classes, evaluator.splits
        ),
    ),
    "fid": MetricDeclaration(
        FrechetInceptionDistance.columns,
        uses_real_images=True,
        build=lambda evaluator: FrechetInceptionDistance(
            evaluator.real_statistics, evaluator.fid_samples
        ),
    ),
    "kid": MetricDeclaration(
        kernel_distance.COLUMNS, uses_real_images=True, compare=_compare_kernels
    ),
    "prdc": MetricDeclaration(
        manifold.COLUMNS,
        uses_real_images=True,
        compare=_compare_manifolds,
        least=manifold.NEIGHBOURS + 1,
    ),
}
DEFAULT_METRICS = ("is", "fid")


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        values: A Python float for each of the evaluator's columns, in their order.
        record: JSON-able: how they came about and how certain they are; `seconds` it took.
    """

    values: dict[str, float]
    record: dict[str, Any]


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
        run_seed: The run's seed, of whatever is drawn.
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
        batch_size: int = IMAGES_PER_DEVICE,
        cache_dir: str | os.PathLike | None = None,
        metrics: Sequence[str] = DEFAULT_METRICS,
        with_replacement: bool = False,
        embed: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]] | None = None,
    ) -> None:
        """Checks the choices; nothing is computed yet.

        Args:
            network: The feature network.
            source: The real images, RGB.
            run_seed: Seed of the selection of real images and of the KID's subsets.
            is_samples: Number of samples for the Inception Score.
            fid_samples: Number of samples, the first of those, for the FID and all other metrics
                that compare with real images.
            fid_real: Number of real images for those.
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
            "is_samples": (is_samples, splits if "is" in metrics else 1),
            "fid_samples": (fid_samples, 2),
            "fid_real": (fid_real, 2),
            "batch_size": (batch_size, 1),
        }
        _check_choices(metrics, source, least)
        self._declarations = [METRICS[name] for name in METRICS if name in metrics]
        for declaration in self._declarations:
            check_counts(declaration, fid_samples, min(fid_real, len(source)))
        self.network = network
        self._embed = embed or network
        self.source = source
        self.is_samples = is_samples
        self.fid_samples = fid_samples
        self.splits = splits
        self._batch_size = batch_size
        self._cache_dir = cache_dir
        self.run_seed = run_seed
        self._indices = select_real_images(len(source), fid_real, run_seed, with_replacement)
        self._statistics: GaussianStatistics | None = None
        self._features: np.ndarray | None = None
        self._key = self._statistics_key(run_seed, with_replacement)
        self.columns = [
            network.column_prefix + column
            for declaration in self._declarations
            for column in declaration.columns
        ]
        self.record = {
            "network": network.provenance,
            "metrics": [name for name in METRICS if name in metrics],
            "real": {name: self._key[name] for name in ("source", "selection")},
            "is_samples": is_samples,
            "fid_samples": fid_samples,
            "splits": splits,
            "seed": run_seed,
        }

    @property
    def real_statistics(self) -> GaussianStatistics:
        """Statistics of the real images; `prepare` is called if it has not been."""
        self.prepare()
        return self._statistics

    @property
    def real_features(self) -> np.ndarray:
        """Features of the real images, float32; `prepare` is called if it has not been."""
        self.prepare()
        return self._features

    def prepare(self) -> None:
        """Computes what the metrics need of the real images, or reads it from the cache.

        Nothing happens if no metric chosen needs them, or if it has been done.

        Raises:
            NonFiniteFeaturesError: The network answered with NaN or infinity.
            UserError: The cache cannot be written.
        """
        if self._features is None and any(d.compare for d in self._declarations):
            self._features = self._cached("features", self._real_features)["features"]
        needs_statistics = any(d.build and d.uses_real_images for d in self._declarations)
        if self._statistics is None and needs_statistics:
            arrays = self._cached("statistics", self._real_statistics)
            self._statistics = GaussianStatistics(
                arrays["mean"], arrays["covariance"], int(arrays["count"])
            )

    def evaluate(self, generate: Callable[[int, int], Any]) -> Evaluation:
        """Computes the metrics of a generator in one pass over its samples.

        Args:
            generate: Called as `generate(start, count)` for consecutive ranges; returns samples
                `start` to `start + count - 1`, float32 `[count, height, width, 3]` in
                [-1, 1], which are not rounded.

        Returns:
            The values of `columns`, and how they came about.

        Raises:
            InvalidSamplesError: A sample is NaN or outside [-1, 1].
            NonFiniteFeaturesError: The network answered with NaN or infinity.
        """
        began = time.perf_counter()
        metrics = self._build_metrics()
        total = max(metric.num_samples for metric in metrics)
        for start, stop in self._batches(total, "samples"):
            shape = (stop - start, *self.source.image_shape)
            images = check_samples(generate(start, stop - start), start, shape)
            with graph_optimizers.unrestrained():
                outputs = self._embed(images)
            features, logits = (output.numpy() for output in outputs)
            for metric in metrics:
                wanted = max(metric.num_samples - start, 0)
                metric.update(features[:wanted], logits[:wanted])
        values: dict[str, float] = {}
        details: dict[str, Any] = {}
        for metric in metrics:
            values |= metric.result()
            details |= metric.details()
        prefix = self.network.column_prefix
        seconds = round(time.perf_counter() - began, 3)
        return Evaluation(
            {prefix + name: value for name, value in values.items()},
            {**self.record, "details": details, "seconds": seconds},
        )

    def _build_metrics(self) -> list[Metric]:
        """Empty metrics in the order of the columns; those that share features come last."""
        metrics = [d.build(self) for d in self._declarations if d.build]
        comparisons = [
            functools.partial(d.compare, self.run_seed) for d in self._declarations if d.compare
        ]
        if comparisons:
            shared = FeatureComparisons(self.real_features, self.fid_samples, comparisons)
            metrics.append(shared)
        return metrics

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

    def _cached(self, kind: str, compute: Callable[[], Arrays]) -> Arrays:
        """Arrays of the real images from the cache, or computed and kept there."""
        # The kind is not part of the statistics' key, which is older than the other kinds.
        key = self._key if kind == "statistics" else {"kind": kind, **self._key}
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", f"{self.source.name}-{self.network.name}")
        folder = cache_folder(self._cache_dir, CACHE_SUBFOLDER)
        return load_or_compute(folder / f"{stem}-{key_digest(key)[:16]}.npz", key, compute)

    def _real_features(self) -> Arrays:
        buffer = FeatureBuffer(len(self._indices), self.network.num_features)
        for features in self._embedded_real_images():
            buffer.update(features)
        return {"features": buffer.features()}

    def _real_statistics(self) -> Arrays:
        accumulator = GaussianAccumulator(self.network.num_features)
        for features in self._embedded_real_images():
            accumulator.update(features)
        statistics = accumulator.statistics()
        return {
            "mean": statistics.mean,
            "covariance": statistics.covariance,
            "count": np.array(statistics.count),
        }

    def _embedded_real_images(self) -> Iterator[np.ndarray]:
        """Yields the features of the real images in batches, those at hand if there are."""
        if self._features is not None:
            for start in range(0, len(self._features), self._batch_size):
                yield self._features[start : start + self._batch_size]
            return
        for start, stop in self._batches(len(self._indices), "real images"):
            images = scale_pixels(self.source.read(self._indices[start:stop]))
            with graph_optimizers.unrestrained():
                features, _ = self._embed(tf.constant(images))
            yield features.numpy()

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


def check_counts(declaration: MetricDeclaration, samples: int, real: int) -> None:
    """Refuses to compare too few images.

    Raises:
        UserError: There are fewer samples or real images than the metric is defined for.
    """
    if declaration.uses_real_images and min(samples, real) < declaration.least:
        raise UserError(
            f"{', '.join(declaration.columns)} of {samples} samples and {real} real images: "
            f"at least {declaration.least} of each are needed (in a run: fid_samples, fid_real)"
        )
