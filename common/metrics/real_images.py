"""The real images that samples are compared with: which, and what of them is kept."""

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from common.data.source import ImageSource
from common.metrics.cache import Arrays, cache_folder, key_digest, load_or_compute
from common.metrics.embedding import Embedder
from common.metrics.feature_sets import FeatureBuffer
from common.metrics.frechet import GaussianAccumulator, GaussianStatistics
from common.metrics.protocols import Protocol, deviations
from common.metrics.selection import select_real_images

CACHE_SUBFOLDER = "fid_statistics"

# Part of the cache's key: change it whenever the arrays or their meaning change.
_FORMAT = 2


class RealImages:
    """The real images drawn from a set, their features and the Gaussian fitted to those.

    Args:
        source: The set, RGB.
        embedder: The network.
        protocol: Says how many are drawn, and how they reach the network.
        seed: Of the selection.
        with_replacement: Whether they are drawn with replacement, as the original does for
            ImageNet; a protocol that takes the whole set takes each image once.
        is_cached: Whether what is computed is kept in the cache.
        cache_dir: Root of the cache; None for Keras' own.

    Attributes:
        source: The set.
        count: Number of images drawn.
        selection: JSON-able: how many of how many, and how they were drawn.
    """

    def __init__(
        self,
        source: ImageSource,
        embedder: Embedder,
        protocol: Protocol,
        *,
        seed: int,
        with_replacement: bool = False,
        is_cached: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Draws the images; none is read."""
        total = len(source)
        wanted = protocol.real_images
        with_replacement = with_replacement and wanted is not None
        self.source = source
        self._embedder = embedder
        self._is_cached = is_cached
        self._cache_dir = cache_dir
        self._indices = select_real_images(
            total, total if wanted is None else wanted, seed, with_replacement
        )
        self.count = len(self._indices)
        self.selection: dict[str, Any] = {"total": total, "count": self.count}
        if self.count < total or with_replacement:
            self.selection |= {"run_seed": seed, "replacement": with_replacement}
        self._protocol = protocol
        self._statistics: GaussianStatistics | None = None
        self._features: np.ndarray | None = None

    @property
    def key(self) -> dict[str, Any]:
        """Everything that the features depend on, JSON-able; the set's record reads some images."""
        provenance = self._embedder.network.provenance
        changed = deviations(self._protocol)
        inputs = {name: changed[name] for name in ("centre", "distance_resize") if name in changed}
        return {
            "format": _FORMAT,
            "source": {"name": self.source.name, "record": self.source.record},
            "network": {name: provenance[name] for name in ("name", "sha256", "resize")},
            "selection": self.selection,
            **({"inputs": inputs} if inputs else {}),
        }

    @property
    def features(self) -> np.ndarray:
        """Their features, float32 `[count, num_features]`; computed when first asked for.

        Raises:
            NonFiniteFeaturesError: The network answered with NaN or infinity.
            UserError: An image is unusable, or the cache cannot be written.
        """
        if self._features is None:
            self._features = self._cached("features", self._compute_features)["features"]
        return self._features

    @property
    def statistics(self) -> GaussianStatistics:
        """The Gaussian fitted to their features; likewise."""
        if self._statistics is None:
            arrays = self._cached("statistics", self._compute_statistics)
            self._statistics = GaussianStatistics(
                arrays["mean"], arrays["covariance"], int(arrays["count"])
            )
        return self._statistics

    def _cached(self, kind: str, compute: Callable[[], Arrays]) -> Arrays:
        """Arrays from the cache, or computed and kept there."""
        if not self._is_cached:
            return compute()
        # The kind is not part of the statistics' key, which is older than the other kinds.
        key = self.key if kind == "statistics" else {"kind": kind, **self.key}
        name = f"{self.source.name}-{self._embedder.network.name}"
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", name)
        folder = cache_folder(self._cache_dir, CACHE_SUBFOLDER)
        return load_or_compute(folder / f"{stem}-{key_digest(key)[:16]}.npz", key, compute)

    def _compute_features(self) -> Arrays:
        buffer = FeatureBuffer(self.count, self._embedder.network.num_features)
        for features in self._batches():
            buffer.update(features)
        return {"features": buffer.features()}

    def _compute_statistics(self) -> Arrays:
        accumulator = GaussianAccumulator(self._embedder.network.num_features)
        for features in self._batches():
            accumulator.update(features)
        statistics = accumulator.statistics()
        return {
            "mean": statistics.mean,
            "covariance": statistics.covariance,
            "count": np.array(statistics.count),
        }

    def _batches(self) -> Iterator[np.ndarray]:
        """Yields their features in batches, those at hand if there are."""
        if self._features is not None:
            size = self._embedder.batch_size
            for start in range(0, len(self._features), size):
                yield self._features[start : start + size]
            return
        for features, _ in self._embedder.batches(self.source, self._indices, "real images"):
            yield features
