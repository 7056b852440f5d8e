"""Evaluates sets of images by a protocol: one pass over the samples feeds every metric."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from common.data.source import ImageSource
from common.errors import UserError
from common.metrics.embedding import Embed, Embedder, ImageSet
from common.metrics.feature_network import FeatureNetwork
from common.metrics.feature_sets import FeatureComparisons
from common.metrics.frechet import GaussianAccumulator, GaussianStatistics
from common.metrics.metric import MetricInputs, Reads, StreamingMetric
from common.metrics.protocols import Protocol, deviations
from common.metrics.real_images import RealImages
from common.metrics.rows import DEFAULT_METRICS, METRICS, chosen_metrics

IMAGES_PER_DEVICE = 32  # at a time; of 64, a run on CelebA takes 0.15 GB more

Reference = ImageSource | GaussianStatistics | None

# What a reference can give of the real images (see `Metric.reference`).
_OFFERS = {"none": ("none",), "statistics": ("none", "statistics")}


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        values: A Python float for each of the evaluator's columns, in their order; NaN where one
            is undefined.
        record: JSON-able: how they came about and how certain they are; `seconds` it took.
    """

    values: dict[str, float]
    record: dict[str, Any]


def available_metrics(reference: Reference) -> list[str]:
    """Names of the metrics that can be computed against a reference: images, statistics, none."""
    return [name for name, metric in METRICS.items() if _offers(reference, metric.reference)]


def _offers(reference: Reference, needed: Literal["none", "statistics", "images"]) -> bool:
    if isinstance(reference, ImageSource):
        return True
    return needed in _OFFERS["none" if reference is None else "statistics"]


class Evaluator:
    """Computes the metrics of sets of images, again and again, against the same reference.

    Attributes:
        network: The feature network, as the protocol uses it for distances.
        columns: Names of the values that `evaluate` returns, in order.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        protocol: Protocol,
        metrics: Sequence[str] = DEFAULT_METRICS,
        reference: Reference = None,
        *,
        seed: int = 0,
        with_replacement: bool = False,
        batch_size: int = IMAGES_PER_DEVICE,
        is_cached: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
        spread: Callable[[FeatureNetwork], Embed] | None = None,
    ) -> None:
        """Checks the choices; nothing is computed yet.

        Args:
            network: The feature network.
            protocol: How the numbers are made.
            metrics: Names from `METRICS` or import paths, in any order: the columns have that of
                the table, a user's own come last.
            reference: The real images, RGB, or their statistics, or None.
            seed: Of the selection of real images and of whatever the metrics draw.
            with_replacement: Whether real images are drawn with replacement.
            batch_size: Number of images that go through the network at a time.
            is_cached: Whether what is computed of the real images is kept in the cache: for data
                sets, which a record describes, not for any folder.
            cache_dir: Root of the cache; None for Keras' own.
            spread: Makes of the network a function that shares out its batches over devices.

        Raises:
            UserError: A choice makes no sense, or a metric cannot be computed against the
                reference.
        """
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1")
        self._protocol = protocol
        self._seed = seed
        self._metrics = chosen_metrics(metrics)
        self._embedders = _embedders(network, protocol, batch_size, spread)
        self.network = self._embedders["features"].network
        self._check_reference(reference)
        self._real: RealImages | GaussianStatistics | None = None
        if isinstance(reference, ImageSource):
            _check_colours(reference)
            self._real = RealImages(
                reference, self._embedders["features"], protocol, seed=seed,
                with_replacement=with_replacement, is_cached=is_cached, cache_dir=cache_dir,
            )  # fmt: skip
        elif reference is not None:
            self._real = _fitting(reference, self.network)
        self._check_protocols_counts()
        self.columns = [
            self.network.column_prefix + column
            for metric in self._metrics.values()
            for column in metric.columns
        ]

    @property
    def record(self) -> dict[str, Any]:
        """JSON-able description of network, data, numbers of images and selection.

        Raises:
            UserError: A real image is unusable.
        """
        return {
            "network": self.network.provenance,
            "metrics": list(self._metrics),
            "real": _describe(self._real),
            "is_samples": self._protocol.is_samples,
            "fid_samples": self._protocol.fid_samples,
            "splits": self._protocol.splits,
            "seed": self._seed,
            **_changed(self._protocol),
        }

    @property
    def conditions(self) -> dict[str, Any]:
        """What the values depend on besides a run's settings and data: JSON-able."""
        provenance = self.network.provenance
        names = ("name", "sha256", "resize", "logits")
        own = [name for name in self._metrics if name not in METRICS]
        return {
            "network": {name: provenance[name] for name in names if name in provenance},
            "columns": self.columns,
            **({"own_metrics": own} if own else {}),
            **_changed(self._protocol),
        }

    @property
    def real_statistics(self) -> GaussianStatistics | None:
        """Statistics of the real images, computed if need be; None without a reference."""
        return self._real.statistics if isinstance(self._real, RealImages) else self._real

    def prepare(self) -> None:
        """Computes what the metrics need of the real images, or reads it from the cache.

        Nothing happens if no metric chosen needs them, or if it has been done.

        Raises:
            NonFiniteFeaturesError: The network answered with NaN or infinity.
            UserError: An image is unusable, or the cache cannot be written.
        """
        needs = {metric.reference for metric in self._metrics.values()}
        if isinstance(self._real, RealImages):
            # First the features, from which the statistics are then made.
            _ = "images" in needs and self._real.features
            _ = "statistics" in needs and self._real.statistics

    def evaluate(self, samples: ImageSet) -> Evaluation:
        """Computes the metrics of a set, in one pass unless the protocol resizes in two ways.

        Args:
            samples: The images to be judged: uint8, or a generator's floats in [-1, 1]. As many as
                the protocol says are used, the first ones; all, if there are fewer.

        Returns:
            The values of `columns`, and how they came about.

        Raises:
            InvalidSamplesError: A generated image is NaN or outside [-1, 1].
            NonFiniteFeaturesError: The network answered with NaN or infinity.
            UserError: There are too few images, or an image is unusable.
        """
        began = time.perf_counter()
        if not self._metrics:
            raise UserError("no metric is chosen")
        if isinstance(samples, ImageSource):
            _check_colours(samples)
        counts = self._counts(len(samples))
        self._check_counts(counts)
        built = {reads: self._build(reads, count) for reads, count in counts.items()}
        self._feed(samples, built)
        values: dict[str, float] = {}
        details: dict[str, Any] = {}
        for metric in [*built["logits"], *built["features"]]:
            values |= metric.result()
            details |= metric.details()
        columns = [column for metric in self._metrics.values() for column in metric.columns]
        numbers = {"is_samples": counts["logits"], "fid_samples": counts["features"]}
        seconds = round(time.perf_counter() - began, 3)
        return Evaluation(
            {self.network.column_prefix + column: values[column] for column in columns},
            {**self.record, **numbers, "details": details, "seconds": seconds},
        )

    def statistics(self, images: ImageSet) -> GaussianStatistics:
        """Mean and covariance of the features of all images, as the FID's are computed.

        Raises:
            UserError: There are fewer than two images, or an image is unusable.
        """
        accumulator = GaussianAccumulator(self.network.num_features)
        indices = np.arange(len(images))
        for features, _ in self._embedders["features"].batches(images, indices, images.name):
            accumulator.update(features)
        return accumulator.statistics()

    def _counts(self, available: int) -> dict[Reads, int]:
        """Number of samples that metrics of logits and of features are given."""
        protocol = self._protocol
        return {
            "logits": protocol.at_most("is_samples", available),
            "features": protocol.at_most("fid_samples", available),
        }

    def _check_protocols_counts(self) -> None:
        """Finds before a training what its own numbers of samples do not allow."""
        protocol = self._protocol
        if protocol.is_samples is None or protocol.fid_samples is None:
            return  # as many as there will be
        counts = self._counts(max(protocol.is_samples, protocol.fid_samples))
        self._check_counts(counts)
        for metric in self._metrics.values():
            if metric.stream and metric.reference == "none":  # it may know more of its limits
                metric.stream(self._inputs(metric.reads, counts[metric.reads]))

    def _check_counts(self, counts: Mapping[Reads, int]) -> None:
        real = self._real.count if isinstance(self._real, RealImages) else None
        for metric in self._metrics.values():
            metric.check_counts(counts[metric.reads], real)

    def _check_reference(self, reference: Reference) -> None:
        missing = [n for n, m in self._metrics.items() if not _offers(reference, m.reference)]
        if missing:
            raise UserError(
                f"{', '.join(missing)} cannot be computed against "
                f"{'nothing' if reference is None else 'stored statistics'}; name a second set "
                f"of images, or choose some of {', '.join(available_metrics(reference))}"
            )

    def _inputs(self, reads: Reads, count: int, real: Any = None) -> MetricInputs:
        network = self._embedders[reads].network
        return MetricInputs(
            protocol=self._protocol,
            seed=self._seed,
            num_samples=count,
            num_features=network.num_features,
            num_classes=network.num_classes,
            real=real,
        )

    def _build(self, reads: Reads, count: int) -> list[StreamingMetric]:
        """Empty metrics; those that compare features share them."""
        chosen = {name: m for name, m in self._metrics.items() if m.reads == reads}
        built: list[StreamingMetric] = []
        if any(metric.reference != "none" for metric in chosen.values()):
            self.prepare()
        for metric in chosen.values():
            if metric.stream:
                real = None if metric.reference == "none" else self.real_statistics
                built.append(metric.stream(self._inputs(reads, count, real)))
        compared = {name: metric for name, metric in chosen.items() if metric.compare}
        if compared:
            needed = any(metric.reference == "images" for metric in compared.values())
            images = self._real if needed and isinstance(self._real, RealImages) else None
            features = images.features if images else None
            built.append(FeatureComparisons(compared, self._inputs(reads, count), features))
        return built

    def _feed(self, samples: ImageSet, built: Mapping[Reads, list[StreamingMetric]]) -> None:
        """Gives every metric its samples: in one pass, unless they are resized differently."""
        passes: dict[Embedder, list[StreamingMetric]] = {}
        for reads, metrics in built.items():
            passes.setdefault(self._embedders[reads], []).extend(metrics)
        for embedder, metrics in passes.items():
            if not metrics:
                continue
            start, total = 0, max(metric.num_samples for metric in metrics)
            for features, logits in embedder.batches(samples, np.arange(total), samples.name):
                for metric in metrics:
                    wanted = max(metric.num_samples - start, 0)
                    metric.update(features[:wanted], logits[:wanted])
                start += len(features)


def _embedders(
    network: FeatureNetwork,
    protocol: Protocol,
    batch_size: int,
    spread: Callable[[FeatureNetwork], Embed] | None,
) -> dict[Reads, Embedder]:
    """The network as metrics of logits and of features see it: one, if they see it alike."""
    distance = Embedder(network, protocol, protocol.distance_resize, batch_size, spread)
    if protocol.score_resize == protocol.distance_resize:
        return {"logits": distance, "features": distance}
    score = Embedder(network, protocol, protocol.score_resize, batch_size, spread)
    return {"logits": score, "features": distance}


def _check_colours(source: ImageSource) -> None:
    if tuple(source.image_shape)[2:] != (3,):
        raise UserError(
            f"data set {source.name} has images of shape {tuple(source.image_shape)}; "
            "the metrics need height, width and 3 colours"
        )


def _fitting(statistics: GaussianStatistics, network: FeatureNetwork) -> GaussianStatistics:
    length, wanted = len(statistics.mean), network.num_features
    if length != wanted:
        raise UserError(
            f"the stored statistics are of {length} features and the network "
            f"{network.name} has {wanted}; use those of the same network"
        )
    return statistics


def _describe(real: RealImages | GaussianStatistics | None) -> dict[str, Any] | None:
    if isinstance(real, RealImages):
        return {name: real.key[name] for name in ("source", "selection")}
    return None if real is None else {"statistics_of": real.count or None}


def _changed(protocol: Protocol) -> dict[str, Any]:
    changed = deviations(protocol)
    return {"protocol": changed} if changed else {}
