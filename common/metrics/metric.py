"""What every metric has in common."""

import abc
from typing import Any

import numpy as np


class Metric(abc.ABC):
    """A running computation over the features and logits of the first samples.

    Attributes:
        num_samples: Number of samples that are to be added.
    """

    num_samples: int

    @abc.abstractmethod
    def update(self, features: np.ndarray, logits: np.ndarray) -> None:
        """Adds float32 `[n, num_features]` and `[n, num_classes]` of the next samples."""

    @abc.abstractmethod
    def result(self) -> dict[str, float]:
        """Returns a value for each of the metric's columns."""

    def details(self) -> dict[str, Any]:
        """Returns what there is to say of the result besides: JSON-able, by name."""
        return {}
