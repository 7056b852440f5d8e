"""Compares any two sets of images by a protocol."""

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from common.data import ImageSource
from common.errors import UserError
from common.metrics.evaluation import METRICS, Evaluation, check_counts, check_samples
from common.metrics.feature_network import FeatureNetwork
from common.metrics.feature_sets import FeatureBuffer, FeatureComparisons
from common.metrics.frechet import (
    FrechetInceptionDistance,
    GaussianAccumulator,
    GaussianStatistics,
)
from common.metrics.inception import InceptionNetwork
from common.metrics.inception_score import InceptionScore
from common.metrics.metric import Metric
from common.metrics.protocols import PIL_BICUBIC, PROTOCOLS, Protocol
from common.metrics.selection import select_real_images

Reference = ImageSource | GaussianStatistics | None


def available_metrics(reference: Reference) -> list[str]:
    """Names of the metrics that can be computed against a reference: images, statistics, none."""
    if reference is None:
        return ["is"]
    if isinstance(reference, GaussianStatistics):
        return ["is", "fid"]
    return list(METRICS)


class SetComparison:
    """The metrics of one set against another, or of one alone."""

    def __init__(
        self,
        network: FeatureNetwork,
        protocol: str,
        metrics: Sequence[str],
        *,
        seed: int = 0,
        batch_size: int = 64,
    ) -> None:
        """Checks the choices; nothing is computed yet.

        Args:
            network: The feature network, as published values use it.
            protocol: Name in `PROTOCOLS`.
            metrics: Names from `METRICS`.
            seed: Of the selection of real images and of the KID's subsets.
            batch_size: Number of images that go through the network at a time.

        Raises:
            UserError: The network cannot serve the protocol.
        """
        if protocol not in PROTOCOLS:
            raise UserError(f"unknown protocol {protocol!r}; choose one of {', '.join(PROTOCOLS)}")
        self._name = protocol
        self._protocol = PROTOCOLS[protocol]
        self._metrics = [name for name in METRICS if name in metrics]
        self._seed = seed
        self._batch_size = batch_size
        self._score_network = _network_for(network, self._protocol, self._protocol.score_resize)
        self._distance_network = _network_for(
            network, self._protocol, self._protocol.distance_resize
        )

    def evaluate(self, samples: ImageSource, reference: Reference = None) -> Evaluation:
        """Computes the metrics.

        Args:
            samples: The images to be judged. They may also be floats in [-1, 1].
            reference: The real images, or their statistics, or None for the Inception Score alone.

        Returns:
            The values, NaN where one is undefined, and how they came about.

        Raises:
            UserError: A metric cannot be computed of these; an image is unusable.
        """
        began = time.perf_counter()
        missing = [name for name in self._metrics if name not in available_metrics(reference)]
        if missing:
            raise UserError(
                f"{', '.join(missing)} cannot be computed against "
                f"{'nothing' if reference is None else 'stored statistics'}; name a second set "
                f"of images, or choose some of {', '.join(available_metrics(reference))}"
            )
        score = [self._build_score(samples)] if "is" in self._metrics else []
        distances = [name for name in self._metrics if name != "is"]
        if distances and isinstance(reference, ImageSource):
            fake_count = _at_most(self._protocol.fid_samples, len(samples))
            real_count = _at_most(self._protocol.real_images, len(reference))
            for name in distances:
                check_counts(METRICS[name], fake_count, real_count)
        real = self._embed_reference(reference) if distances else None
        others = self._build_distances(samples, real, distances) if distances else []
        self._feed(samples, score, others)
        values: dict[str, float] = {}
        details: dict[str, Any] = {}
        for metric in [*score, *others]:
            values |= metric.result()
            details |= metric.details()
        prefix = self._distance_network.column_prefix
        return Evaluation(
            {prefix + name: value for name, value in values.items()},
            {
                "protocol": {"name": self._name, **dataclasses.asdict(self._protocol)},
                "network": self._distance_network.provenance,
                "samples": samples.record,
                "is_samples": score[0].num_samples if score else None,
                "fid_samples": others[0].num_samples if others else None,
                "real": _describe(reference, real),
                "seed": self._seed,
                "details": details,
                "seconds": round(time.perf_counter() - began, 3),
            },
        )

    def statistics(self, images: ImageSource) -> GaussianStatistics:
        """Mean and covariance of the features of all images, as the FID's are computed.

        Raises:
            UserError: There are fewer than two images.
        """
        accumulator = GaussianAccumulator(self._distance_network.num_features)
        indices = np.arange(len(images))
        for features, _ in self._embedded(images, indices, for_score=False):
            accumulator.update(features)
        return accumulator.statistics()

    def _build_score(self, samples: ImageSource) -> Metric:
        protocol = self._protocol
        count = _at_most(protocol.is_samples, len(samples))
        order = None
        if protocol.shuffle_seed is not None:
            # The legacy generator is part of the protocol.
            order = np.random.RandomState(protocol.shuffle_seed).permutation(count)
        classes = self._score_network.num_classes
        return InceptionScore(count, classes, protocol.splits, ddof=protocol.ddof, order=order)

    def _build_distances(
        self, samples: ImageSource, real: "_Embedded", names: Sequence[str]
    ) -> list[Metric]:
        count = _at_most(self._protocol.fid_samples, len(samples))
        built: list[Metric] = []
        if "fid" in names:
            built.append(FrechetInceptionDistance(real.statistics, count, self._protocol.distance))
        comparisons = [
            functools.partial(METRICS[name].compare, self._seed)
            for name in names
            if METRICS[name].compare
        ]
        if comparisons:
            built.append(FeatureComparisons(real.features, count, comparisons))
        return built

    def _embed_reference(self, reference: ImageSource | GaussianStatistics) -> "_Embedded":
        if isinstance(reference, GaussianStatistics):
            length, wanted = len(reference.mean), self._distance_network.num_features
            if length != wanted:
                raise UserError(
                    f"the stored statistics are of {length} features and the network "
                    f"{self._distance_network.name} has {wanted}; use those of the same network"
                )
            return _Embedded(reference, None, None)
        count = _at_most(self._protocol.real_images, len(reference))
        drawn_again = self._protocol.real_images is not None and reference.real_with_replacement
        indices = select_real_images(len(reference), count, self._seed, drawn_again)
        accumulator = GaussianAccumulator(self._distance_network.num_features)
        wanted = any(METRICS[name].compare for name in self._metrics)
        buffer = FeatureBuffer(count, self._distance_network.num_features) if wanted else None
        for features, _ in self._embedded(reference, indices, for_score=False):
            accumulator.update(features)
            if buffer:
                buffer.update(features)
        return _Embedded(accumulator.statistics(), buffer and buffer.features(), count)

    def _feed(self, samples: ImageSource, score: list[Metric], others: list[Metric]) -> None:
        """Gives every metric its samples: in one pass, unless they are resized differently."""
        shared = self._protocol.score_resize == self._protocol.distance_resize
        passes = [(True, [*score, *others])] if shared else [(True, score), (False, others)]
        for for_score, metrics in passes:
            if not metrics:
                continue
            total = max(metric.num_samples for metric in metrics)
            start = 0
            for features, logits in self._embedded(samples, np.arange(total), for_score=for_score):
                for metric in metrics:
                    wanted = max(metric.num_samples - start, 0)
                    metric.update(features[:wanted], logits[:wanted])
                start += len(features)

    def _embedded(
        self, images: ImageSource, indices: np.ndarray, *, for_score: bool
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields features and logits of the images at `indices`, batch after batch."""
        protocol = self._protocol
        network = self._score_network if for_score else self._distance_network
        resize = protocol.score_resize if for_score else protocol.distance_resize
        with tqdm(total=len(indices), desc=images.name, unit="images", mininterval=1.0) as progress:
            for start in range(0, len(indices), self._batch_size):
                batch = np.asarray(images.read(indices[start : start + self._batch_size]))
                if batch.dtype != np.uint8:
                    batch = check_samples(batch, start, batch.shape).numpy()
                prepared = tf.constant(protocol.prepare(batch, resize))
                yield tuple(output.numpy() for output in network(prepared))
                progress.update(len(batch))


@dataclasses.dataclass(frozen=True)
class _Embedded:
    """What is known of the real images: `count` of them, unless they were never seen."""

    statistics: GaussianStatistics
    features: np.ndarray | None
    count: int | None


def _network_for(network: FeatureNetwork, protocol: Protocol, resize: str) -> FeatureNetwork:
    """The network with the protocol's logits and resize; PIL's is not its own."""
    if isinstance(network, InceptionNetwork):
        network = network.with_logits(protocol.classes, protocol.with_bias)
    elif protocol is not PROTOCOLS["bsn"]:
        raise UserError(
            f"the network {network.name} knows no protocol but bsn; choose the network inception"
        )
    return network if resize == PIL_BICUBIC else network.resized(resize)


def _at_most(wanted: int | None, available: int) -> int:
    return available if wanted is None else min(wanted, available)


def _describe(reference: Reference, real: _Embedded | None) -> dict[str, Any] | None:
    if real is None:
        return None
    if isinstance(reference, GaussianStatistics):
        return {"statistics_of": reference.count or None}
    return {**reference.record, "used": real.count}
