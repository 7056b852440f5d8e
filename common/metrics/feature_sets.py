"""Metrics that need all features of both sides at once, which they share."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from common.metrics.errors import NonFiniteFeaturesError
from common.metrics.metric import Metric

# From real and fake features to the values by column, and details of them.
Comparison = Callable[[np.ndarray, np.ndarray], tuple[dict[str, float], dict[str, Any]]]


class FeatureBuffer:
    """The features of the first images, float32, kept once for everything that needs them."""

    def __init__(self, num_samples: int, num_features: int) -> None:
        """Starts empty, with the memory for all."""
        self._features = np.empty([num_samples, num_features], np.float32)
        self._count = 0

    def update(self, features: np.ndarray) -> None:
        """Adds features `[n, num_features]` of the next images.

        Raises:
            NonFiniteFeaturesError: A value is NaN or infinite; nothing is added.
            ValueError: There are more images than expected.
        """
        stop = self._count + len(features)
        if not np.isfinite(features).all():
            raise NonFiniteFeaturesError(
                f"the features of images {self._count} to {stop - 1} hold NaN or infinity; "
                "they cannot be compared"
            )
        self._features[self._count : stop] = features
        self._count = stop

    def features(self) -> np.ndarray:
        """Returns float32 `[num_samples, num_features]`, not copied.

        Raises:
            ValueError: Images are still missing.
        """
        if self._count != len(self._features):
            raise ValueError(f"{self._count} of {len(self._features)} images seen")
        return self._features


class FeatureComparisons(Metric):
    """Collects the samples' features and compares them with the real ones in several ways."""

    def __init__(
        self, real: np.ndarray, num_samples: int, comparisons: Sequence[Comparison]
    ) -> None:
        """Starts without samples.

        Args:
            real: Features `[n, num_features]` of the real images.
            num_samples: Number of samples to come.
            comparisons: Called once all features are there.
        """
        self.num_samples = num_samples
        self._real = real
        self._fake = FeatureBuffer(num_samples, real.shape[1])
        self._comparisons = comparisons
        self._details: dict[str, Any] = {}

    def update(self, features: np.ndarray, logits: np.ndarray) -> None:
        """Adds the features of the next samples; see the base class.

        Raises:
            NonFiniteFeaturesError: A feature is NaN or infinite.
        """
        del logits
        self._fake.update(features)

    def result(self) -> dict[str, float]:
        """Returns the values of all comparisons, in their order."""
        values: dict[str, float] = {}
        for compare in self._comparisons:
            new, details = compare(self._real, self._fake.features())
            values |= new
            self._details |= details
        return values

    def details(self) -> dict[str, Any]:
        """Returns the details of all comparisons; after `result`."""
        return self._details
