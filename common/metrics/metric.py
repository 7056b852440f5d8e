"""What a metric is: a declared row, and how one that reads a stream of samples is written."""

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from common.errors import UserError

if TYPE_CHECKING:
    from common.metrics.frechet import GaussianStatistics
    from common.metrics.protocols import Protocol

# From a seed, real features (or None) and fake ones to values by name.
Comparison = Callable[[int, Any, np.ndarray], Mapping[str, Any]]

Reads = Literal["features", "logits"]


class StreamingMetric(abc.ABC):
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


@dataclass(frozen=True)
class MetricInputs:
    """What a streaming metric is made for: one evaluation.

    Attributes:
        protocol: How the numbers are made.
        seed: Of whatever it draws.
        num_samples: Number of samples that it will be given.
        num_features: Length of a feature vector.
        num_classes: Number of logits.
        real: Mean and covariance of the real images' features; None unless its row asks for them.
    """

    protocol: "Protocol"
    seed: int
    num_samples: int
    num_features: int
    num_classes: int
    real: "GaussianStatistics | None" = None


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric: either `compare`, of all features at once, or `stream`.

    Attributes:
        columns: Names of its values, without a network's prefix.
        compare: Called as `compare(seed, real, fake)` with float32 features `[n, num_features]`
            (`real` is None if `reference` is "none"); returns numbers by name: those of the
            columns, and details for the record.
        stream: Makes the `StreamingMetric` of one evaluation.
        reads: "features" or "logits": by which of a protocol's resizes and numbers of samples it
            is computed. Both are given to a streaming metric, only features to `compare`.
        reference: What it needs of the real images: "none", "statistics" (mean and covariance of
            their features, which files may hold) or "images".
        least: Number of samples, and of real images if they are needed, below which it is
            undefined.

    Raises:
        ValueError: The row contradicts itself.
    """

    columns: tuple[str, ...]
    compare: Comparison | None = None
    stream: Callable[[MetricInputs], StreamingMetric] | None = None
    reads: Reads = "features"
    reference: Literal["none", "statistics", "images"] = "images"
    least: int = 2

    def __post_init__(self) -> None:
        """Checks the row."""
        if isinstance(self.columns, str) or not all(isinstance(c, str) for c in self.columns):
            raise ValueError(f"columns are a tuple of names, not {self.columns!r}")
        if not self.columns or len(set(self.columns)) < len(self.columns):
            raise ValueError(f"columns are one or more different names, not {self.columns!r}")
        if (self.compare is None) == (self.stream is None):
            raise ValueError("a metric has either compare or stream")
        if self.compare and self.reads != "features":
            raise ValueError("compare reads features; a metric of logits is a stream")
        if self.stream and self.reference == "images":
            raise ValueError("a stream is given statistics of the real images, or nothing")

    def check_counts(self, samples: int, real: int | None) -> None:
        """Refuses too few images.

        Args:
            samples: Number of samples.
            real: Number of real images; None if there are none, or none that are counted.

        Raises:
            UserError: The metric is not defined for so few.
        """
        counts = [samples]
        text = f"{', '.join(self.columns)} of {samples} samples"
        if self.reference != "none" and real is not None:
            counts.append(real)
            text += f" and {real} real images"
        if min(counts) < self.least:
            raise UserError(
                f"{text}: at least {self.least} {'of each ' * (len(counts) > 1)}are needed (in a "
                "run: is_samples, fid_samples, fid_real)"
            )
