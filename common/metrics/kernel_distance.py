"""The Kernel Inception Distance (Bińkowski et al. 2018)."""

import numpy as np
from tqdm import tqdm

from common.errors import UserError
from common.metrics.selection import generator_for

COLUMNS = ("kid_mean", "kid_std")
SUBSETS = 100
SUBSET_SIZE = 1000


def kernel_inception_distance(
    real: np.ndarray,
    fake: np.ndarray,
    seed: int,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
) -> dict[str, float]:
    """KID: the squared maximum mean discrepancy under `k(x, y) = (x·y / d + 1)^3`.

    Its unbiased estimate for `m` images of either set `x` and `y` is, with sums over `i != j`,
    `(sum k(x_i, x_j) + sum k(y_i, y_j)) / (m (m - 1)) - 2 / m² sum k(x_i, y_j)`, the last sum over
    all pairs. It is averaged over random subsets, each drawn without replacement. The estimate
    being unbiased, smaller subsets change its scatter and not its expectation.

    Args:
        real: Features `[n, d]` of the real images.
        fake: Features `[m, d]` of the samples.
        seed: Subset `i` depends on the seed, on `i` and on the sizes alone.
        subsets: Number of subsets.
        subset_size: Number of images of either set in a subset; all, if a set has fewer.

    Returns:
        `kid_mean` and `kid_std`, mean and standard deviation (ddof 0) over the subsets, float64,
        without unit. The mean may be negative by chance.

    Raises:
        UserError: A set has fewer than two images.
    """
    size = subset_size_for(len(real), len(fake), subset_size)
    values = [
        _squared_discrepancy(*_subset(real, fake, size, seed, number))
        for number in tqdm(range(subsets), desc="KID", unit="subsets", delay=2, leave=False)
    ]
    return dict(zip(COLUMNS, (float(np.mean(values)), float(np.std(values))), strict=True))


def compare(seed: int, real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """The values of `kernel_inception_distance`, and `kid_subset_size`, as a metric's row asks."""
    size = subset_size_for(len(real), len(fake))
    return {**kernel_inception_distance(real, fake, seed), "kid_subset_size": size}


def subset_size_for(real_count: int, fake_count: int, wanted: int = SUBSET_SIZE) -> int:
    """Returns the number of images of either set in a subset.

    Raises:
        UserError: A set has fewer than two images.
    """
    size = min(wanted, real_count, fake_count)
    if size < 2:
        raise UserError(
            f"the KID of {real_count} real images and {fake_count} samples is undefined; "
            "use at least 2 of each"
        )
    return size


def _subset(
    real: np.ndarray, fake: np.ndarray, size: int, seed: int, number: int
) -> tuple[np.ndarray, np.ndarray]:
    generator = generator_for(f"subsets of the KID/{seed}", number)
    chosen = [generator.choice(len(features), size, replace=False) for features in (real, fake)]
    return real[chosen[0]].astype(np.float64), fake[chosen[1]].astype(np.float64)


def _squared_discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    size = len(x)
    within = sum(kernel.sum() - np.trace(kernel) for kernel in (_kernel(x, x), _kernel(y, y)))
    return within / (size * (size - 1)) - 2 * _kernel(x, y).mean()


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3
