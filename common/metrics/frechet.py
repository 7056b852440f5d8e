"""The Fréchet distance between Gaussians fitted to features (Heusel et al. 2017)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg

from common.errors import UserError
from common.metrics.errors import NonFiniteFeaturesError
from common.metrics.metric import MetricInputs, StreamingMetric
from common.metrics.protocols import DISTANCES

# Singular values below this stay as they are under the root (specification, section 6).
ROOT_THRESHOLD = 1e-10
# Rows gathered before they are merged: merging costs as much for one row as for hundreds.
_CHUNK_ROWS = 1024
# Parts of the samples, whose scatter gives the standard error.
SPLITS = 10
# Eigenvalues this small beside the largest are rounding errors of zero.
_ZERO = 1e-12


def _root_of_eigenvalues(eigenvalues: np.ndarray) -> np.ndarray:
    """Roots the singular values of a symmetric matrix, given its eigenvalues.

    A symmetric matrix has as singular values its eigenvalues' magnitudes; their signs are in the
    singular vectors, `u = sign(eigenvalue) v`. So a root by `u diag(root(s)) v^T` keeps them,
    and rounding errors about zero cancel in its trace instead of adding up.
    """
    singular = np.abs(eigenvalues)
    rooted = np.where(singular < ROOT_THRESHOLD, singular, np.sqrt(singular))
    return np.copysign(rooted, eigenvalues)


@dataclass(frozen=True, eq=False)
class GaussianStatistics:
    """A Gaussian fitted to features.

    Attributes:
        mean: float64 `[d]`.
        covariance: float64 `[d, d]`, symmetric, normalised by `count - 1`.
        count: Number of images.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int

    @cached_property
    def covariance_root(self) -> np.ndarray:
        """Symmetric root of the covariance, float64 `[d, d]`, computed once."""
        eigenvalues, vectors = np.linalg.eigh(self.covariance)
        return (vectors * _root_of_eigenvalues(eigenvalues)) @ vectors.T


class GaussianAccumulator:
    """Mean and covariance of features that arrive in batches, in float64.

    Chunks of batches are centred on their own mean and merged by the pairwise update of Chan et
    al. (1979): unlike sums of squares, it loses no digits when means are large beside deviations.
    """

    def __init__(self, num_features: int) -> None:
        """Starts empty.

        Args:
            num_features: Length `d` of a feature vector.
        """
        self._count = 0
        self._pending: list[np.ndarray] = []
        self._merged = 0
        self._mean = np.zeros(num_features)
        self._scatter = np.zeros((num_features, num_features))

    def update(self, features: np.ndarray, start: int | None = None) -> None:
        """Adds the features of some more images.

        Args:
            features: Array `[n, d]`, n may be 0.
            start: Number of the first of them, for messages; by default that of images so far.

        Raises:
            NonFiniteFeaturesError: A value is NaN or infinite; nothing is added.
        """
        added = len(features)
        if not added:
            return
        if not np.isfinite(features).all():
            start = self._count if start is None else start
            raise NonFiniteFeaturesError(
                f"the features of images {start} to {start + added - 1} hold NaN or "
                "infinity; no Fréchet distance can be computed from them"
            )
        self._pending.append(np.array(features))
        self._count += added
        if self._count - self._merged >= _CHUNK_ROWS:
            self._merge()

    def _merge(self) -> None:
        chunk = np.concatenate(self._pending).astype(np.float64)
        self._pending = []
        chunk_mean = chunk.mean(axis=0)
        delta = chunk_mean - self._mean
        weight = self._merged * len(chunk) / self._count
        # The distance between the two means enters as one more row of the chunk.
        rows = np.vstack([chunk - chunk_mean, delta * np.sqrt(weight)])
        self._scatter += rows.T @ rows
        self._mean += delta * (len(chunk) / self._count)
        self._merged = self._count

    def statistics(self) -> GaussianStatistics:
        """Returns the fitted Gaussian.

        Raises:
            UserError: There are fewer than two images, hence no covariance.
        """
        if self._count < 2:
            raise UserError(
                f"a covariance of {self._count} image(s) is undefined; "
                "use at least 2 real images and 2 samples for the FID"
            )
        if self._pending:
            self._merge()
        return GaussianStatistics(self._mean.copy(), self._scatter / (self._count - 1), self._count)


def pooled(parts: Sequence[GaussianStatistics]) -> GaussianStatistics:
    """Returns the Gaussian fitted to the images of all parts together, by Chan et al. (1979)."""
    count = sum(part.count for part in parts)
    mean = np.asarray(sum(part.count * part.mean for part in parts)) / count
    scatter = np.zeros_like(parts[0].covariance)
    for part in parts:
        offset = np.sqrt(part.count) * (part.mean - mean)
        scatter += (part.count - 1) * part.covariance
        scatter += np.outer(offset, offset)
    return GaussianStatistics(mean, scatter / (count - 1), count)


def frechet_distance(real: GaussianStatistics, fake: GaussianStatistics) -> float:
    """Fréchet distance of two Gaussians.

    `|mu_r - mu_f|² + tr(S_r) + tr(S_f) - 2 tr(sqrt(sqrt(S_r) S_f sqrt(S_r)))`, where
    roots are taken of singular values not below 1e-10, smaller ones stay as they are
    (specification, section 6; Heusel et al. 2017). The root of `S_r` is kept with `real`.
    Because the product is made symmetric, covariances of fewer images than features do no harm.

    Args:
        real: Statistics of the real images.
        fake: Statistics of the samples, of as many features.

    Returns:
        The squared distance, in squared units of the features; it may fall below 0 by rounding.

    Raises:
        ValueError: The numbers of features differ.
    """
    if real.mean.shape != fake.mean.shape:
        raise ValueError(f"features of shapes {real.mean.shape} and {fake.mean.shape}")
    root = real.covariance_root
    product = root @ fake.covariance @ root
    eigenvalues = np.linalg.eigvalsh((product + product.T) / 2)
    return _distance_with(_root_of_eigenvalues(eigenvalues).sum(), real, fake)


def frechet_distance_by_sqrtm(real: GaussianStatistics, fake: GaussianStatistics) -> float:
    """The same by SciPy's root of `S_f S_r`, as many published values were made.

    If the root is not finite, 1e-6 is added to both diagonals; its imaginary part is dropped.
    Slower than `frechet_distance`, and wrong by some 1e-5 where a covariance is singular.
    """
    root = scipy.linalg.sqrtm(fake.covariance @ real.covariance)
    if not np.isfinite(root).all():
        offset = 1e-6 * np.eye(len(real.mean))
        root = scipy.linalg.sqrtm((fake.covariance + offset) @ (real.covariance + offset))
    return _distance_with(np.trace(root).real, real, fake)


def frechet_distance_by_eigenvalues(real: GaussianStatistics, fake: GaussianStatistics) -> float:
    """The same by the roots of the eigenvalues of `S_f S_r`, real parts being added."""
    eigenvalues = np.linalg.eigvals(fake.covariance @ real.covariance)
    return _distance_with(np.sqrt(eigenvalues.astype(complex)).real.sum(), real, fake)


def _distance_with(
    trace_of_root: float, real: GaussianStatistics, fake: GaussianStatistics
) -> float:
    difference = real.mean - fake.mean
    traces = np.trace(real.covariance) + np.trace(fake.covariance)
    return float(difference @ difference + traces - 2 * trace_of_root)


def standard_error(real: GaussianStatistics, parts: Sequence[GaussianStatistics]) -> float | None:
    """Standard error of the Fréchet distance, from the scatter between parts of the samples.

    To first order the distance is a mean over samples, whence the mean over `g` parts of its
    derivative in the direction of each part (the infinitesimal jackknife, Jaeckel 1972, by groups).
    With the pooled mean `m` and covariance `S`, the part's second moment `M_i` about `m` and its
    mean `m + o_i`, that is `d_i = 2 (m - mu_r)·o_i + tr((1 - A) M_i)`,
    `A = R (R S R)^(-1/2) R` with `R = sqrt(S_r)`; the result is their standard deviation
    (ddof 1) over `sqrt(g)`. The distances of the parts alone would not do: they are of fewer
    samples, hence far more biased.

    It estimates how much the distance would scatter if as many other samples of the same generator
    were compared with the same real images. It says nothing of the choice of real images, of other
    trainings, nor of the distance's upward bias, which shrinks with the number of samples. From ten
    parts it is itself uncertain by about a quarter; where there are not many more samples than
    features, it is too large by about a tenth.

    Args:
        real: Statistics of the real images.
        parts: Statistics of the parts of the samples, of about equal sizes.

    Returns:
        The standard error, in squared units of the features, or None for fewer than two parts.
    """
    if len(parts) < 2:
        return None
    whole = pooled(parts)
    root = real.covariance_root
    product = root @ whole.covariance @ root
    eigenvalues, vectors = np.linalg.eigh((product + product.T) / 2)
    # Directions in which the samples do not vary have no derivative and no part has any of them.
    varying = eigenvalues > _ZERO * eigenvalues[-1]
    transport = root @ vectors[:, varying] * eigenvalues[varying] ** -0.25
    weights = np.eye(len(root)) - transport @ transport.T
    derivatives = []
    for part in parts:
        offset = part.mean - whole.mean
        moment = (part.count - 1) / part.count * np.vdot(weights, part.covariance)
        along = 2 * (whole.mean - real.mean) + weights @ offset
        derivatives.append(offset @ along + moment)
    return float(np.std(derivatives, ddof=1) / np.sqrt(len(parts)))


class FrechetInceptionDistance(StreamingMetric):
    """The FID of the first samples against fixed real statistics.

    Attributes:
        columns: Names of the results.
        num_samples: Number of samples that the distance is defined over.
    """

    columns = ("fid",)

    def __init__(
        self, real: GaussianStatistics, num_samples: int, distance: str = "symmetric"
    ) -> None:
        """Starts without samples.

        Args:
            real: Statistics of the real images.
            num_samples: Number of samples to come, at least 2.
            distance: Name in `common.metrics.protocols.DISTANCES` of how it is computed.
        """
        self.num_samples = num_samples
        self._real = real
        self._distance = DISTANCES[distance]
        splits = min(SPLITS, max(num_samples // 2, 1))  # a part of one has no covariance
        self._ends = [i * num_samples // splits for i in range(1, splits + 1)]
        self._count = 0
        self._parts: list[GaussianStatistics] = []
        self._part = GaussianAccumulator(len(real.mean))

    def update(self, features: np.ndarray, logits: np.ndarray) -> None:
        """Adds the next samples.

        Args:
            features: Array `[n, num_features]`.
            logits: Not used by this metric.

        Raises:
            NonFiniteFeaturesError: A feature is NaN or infinite.
            ValueError: There are more samples than `num_samples`.
        """
        del logits
        if self._count + len(features) > self.num_samples:
            raise ValueError(f"sample {self._count + len(features)} of {self.num_samples}")
        while len(features):
            room = self._ends[len(self._parts)] - self._count
            self._part.update(features[:room], self._count)
            self._count += len(features[:room])
            features = features[room:]
            if self._count == self._ends[len(self._parts)]:
                self._parts.append(self._part.statistics())
                self._part = GaussianAccumulator(len(self._real.mean))

    def result(self) -> dict[str, float]:
        """Returns `fid`, the squared distance.

        Raises:
            UserError: Fewer than two samples were expected.
            ValueError: Samples are still missing.
        """
        if self._count != self.num_samples:
            raise ValueError(f"{self._count} of {self.num_samples} samples seen")
        return {"fid": self._distance(self._real, self.statistics())}

    def statistics(self) -> GaussianStatistics:
        """Returns the Gaussian fitted to the samples so far that fill whole parts."""
        return pooled(self._parts)

    def details(self) -> dict[str, Any]:
        """Returns `fid_standard_error`, see `standard_error`; after all samples."""
        return {"fid_standard_error": standard_error(self._real, self._parts)}


def build(inputs: MetricInputs) -> FrechetInceptionDistance:
    """The distance of one evaluation, by its protocol."""
    assert inputs.real is not None  # its row asks for statistics
    return FrechetInceptionDistance(inputs.real, inputs.num_samples, inputs.protocol.distance)
