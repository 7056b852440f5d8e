"""Metrics that need all features of both sides at once, which they share."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from common.errors import UserError
from common.metrics.errors import NonFiniteFeaturesError
from common.metrics.metric import Metric, MetricInputs, StreamingMetric


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


class FeatureComparisons(StreamingMetric):
    """Collects the samples' features, once for all metrics that compare them.

    Args:
        metrics: Rows with `compare`, by name.
        inputs: The evaluation.
        real: Features `[n, num_features]` of the real images; None if no row needs them.
    """

    def __init__(
        self, metrics: Mapping[str, Metric], inputs: MetricInputs, real: np.ndarray | None
    ) -> None:
        """Starts without samples."""
        self.num_samples = inputs.num_samples
        self._metrics = metrics
        self._seed = inputs.seed
        self._real = real
        self._fake = FeatureBuffer(inputs.num_samples, inputs.num_features)
        self._details: dict[str, Any] = {}

    def update(self, features: np.ndarray, logits: np.ndarray) -> None:
        """Adds the features of the next samples; see the base class.

        Raises:
            NonFiniteFeaturesError: A feature is NaN or infinite.
        """
        del logits
        self._fake.update(features)

    def result(self) -> dict[str, float]:
        """Returns the values of all metrics, in their order.

        Raises:
            UserError: A metric gave no number for one of its columns.
        """
        values: dict[str, float] = {}
        for name, metric in self._metrics.items():
            found = dict(self._compare(metric))
            try:
                values |= {column: float(found.pop(column)) for column in metric.columns}
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"the metric {name} gave no number for each of its columns "
                    f"{', '.join(metric.columns)} ({error!r})"
                ) from error
            self._details |= {key: np.asarray(value).tolist() for key, value in found.items()}
        return values

    def _compare(self, metric: Metric) -> Mapping[str, Any]:
        assert metric.compare is not None
        real = None if metric.reference == "none" else self._real
        return metric.compare(self._seed, real, self._fake.features())

    def details(self) -> dict[str, Any]:
        """Returns the details of all metrics; after `result`."""
        return self._details
