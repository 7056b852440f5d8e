"""The Inception Score (Salimans et al. 2016), from sums alone."""

import math

import numpy as np

from common.errors import UserError
from common.metrics.errors import NonFiniteFeaturesError
from common.metrics.metric import MetricInputs, StreamingMetric


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the logarithm of the softmax over the last axis, in float64.

    Args:
        logits: Finite array `[..., classes]` of any size: the maximum is subtracted first.

    Returns:
        float64 array of the same shape, values at most 0.
    """
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


class InceptionScore(StreamingMetric):
    """Accumulates the Inception Score over contiguous splits.

    The score of a split is `exp(mean over images of sum p (log p - log mean p))`, which needs
    only the sums of `p log p` and of `p` and the number of images; no image's probabilities
    are kept. Reported are the mean and the standard deviation over the splits, split `i` of `k`
    being images `i*N//k` to `(i+1)*N//k` (specification, section 6).

    Attributes:
        columns: Names of the results.
        num_samples: Number of images that the score is defined over.
    """

    columns = ("inception_score_mean", "inception_score_std")

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        splits: int = 10,
        *,
        ddof: int = 0,
        order: np.ndarray | None = None,
    ) -> None:
        """Starts empty.

        Args:
            num_samples: Number of images to come.
            num_classes: Length of a vector of logits.
            splits: Number of splits.
            ddof: What is subtracted from the number of splits in the standard deviation.
            order: Permutation of all images: image `order[i]` counts as the `i`-th.

        Raises:
            UserError: A split would be empty.
        """
        if not 1 <= splits <= num_samples:
            raise UserError(
                f"the Inception Score of {num_samples} samples in {splits} splits is undefined; "
                "use at least one split and at least as many samples as splits"
            )
        self.num_samples = num_samples
        self._bounds = [i * num_samples // splits for i in range(splits + 1)]
        self._ddof = ddof
        self._places = None if order is None else np.argsort(order)
        self._count = 0
        self._sum_p_log_p = np.zeros(splits)
        self._sum_p = np.zeros((splits, num_classes))

    def update(self, features: np.ndarray, logits: np.ndarray) -> None:
        """Adds the next images.

        Args:
            features: Not used by this metric.
            logits: Array `[n, num_classes]`.

        Raises:
            NonFiniteFeaturesError: A logit is NaN or infinite.
            ValueError: There are more images than `num_samples`.
        """
        del features
        start, stop = self._count, self._count + len(logits)
        if stop > self.num_samples:
            raise ValueError(f"image {stop} of {self.num_samples} in the Inception Score")
        if not np.isfinite(logits).all():
            raise NonFiniteFeaturesError(
                f"the logits of images {start} to {stop - 1} hold NaN or infinity"
            )
        log_p = log_softmax(logits)
        p = np.exp(log_p)
        places = np.arange(start, stop) if self._places is None else self._places[start:stop]
        splits = np.searchsorted(self._bounds, places, side="right") - 1
        for split in np.unique(splits):
            part = splits == split
            self._sum_p_log_p[split] += np.sum(p[part] * log_p[part])
            self._sum_p[split] += p[part].sum(axis=0)
        self._count = stop

    def result(self) -> dict[str, float]:
        """Returns `inception_score_mean` and `inception_score_std`, both without unit.

        The deviation is NaN if `ddof` is no less than the number of splits.

        Raises:
            ValueError: Images are still missing.
        """
        if self._count != self.num_samples:
            raise ValueError(f"{self._count} of {self.num_samples} images seen")
        counts = np.diff(self._bounds)
        mean_p = self._sum_p / counts[:, None]
        # A class that no image ever shows contributes 0 = lim p log p.
        log_mean_p = np.log(mean_p, where=mean_p > 0, out=np.zeros_like(mean_p))
        divergence = self._sum_p_log_p / counts - np.sum(mean_p * log_mean_p, axis=1)
        scores = np.exp(divergence)
        defined = len(scores) > self._ddof
        deviation = float(scores.std(ddof=self._ddof)) if defined else math.nan
        return dict(zip(self.columns, (float(scores.mean()), deviation), strict=True))


def build(inputs: MetricInputs) -> InceptionScore:
    """The score of one evaluation, by its protocol.

    Raises:
        UserError: A split would be empty.
    """
    protocol, count = inputs.protocol, inputs.num_samples
    order = None
    if protocol.shuffle_seed is not None:
        # The legacy generator is part of the protocol.
        order = np.random.RandomState(protocol.shuffle_seed).permutation(count)
    return InceptionScore(
        count, inputs.num_classes, protocol.splits, ddof=protocol.ddof, order=order
    )
