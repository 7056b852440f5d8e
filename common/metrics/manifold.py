"""Improved precision and recall, density and coverage: what nearest neighbours say of two sets.

Kynkäänniemi et al. 2019; Naeem et al. 2020.
"""

from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from common.errors import UserError

COLUMNS = ("precision", "recall", "density", "coverage")
NEIGHBOURS = 5
# Distances held at a time: 64 MB in float64.
_BLOCK_ELEMENTS = 2**23
# Rounding must not decide on points that lie exactly on a sphere, such as its own k-th neighbour.
_TIE = 1e-9
# Squared distances this small beside the squared norms are rounding errors of equal points.
_SAME_POINT = 1e-13


def precision_recall_density_coverage(
    real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS
) -> dict[str, float]:
    """Compares two sets by the spheres that reach to each point's k-th neighbour in its own set.

    With `R_i` the closed sphere about real image `i` and `F_j` that about sample `j`,

    - precision: the share of samples that lie in some `R_i`;
    - recall: the share of real images that lie in some `F_j`;
    - density: `1 / (k m)` times the number of pairs with sample `j` in `R_i`, `m` samples;
    - coverage: the share of the `R_i` that hold some sample.

    Time grows with the product of the sizes; memory does not, being that of both sets in float64
    and of some 200 MB for distances.

    Args:
        real: Finite features `[n, d]` of the real images.
        fake: Finite features `[m, d]` of the samples.
        k: Number of neighbours, a point not being its own.

    Returns:
        `precision`, `recall` and `coverage` in [0, 1], and `density`, at least 0.

    Raises:
        UserError: A set has no more than k images.
    """
    check_counts(len(real), len(fake), k)
    centre = real.mean(axis=0, dtype=np.float64)  # distances lose fewer digits near the origin
    real, fake = real - centre, fake - centre
    real_radii, fake_radii = _squared_radii(real, k), _squared_radii(fake, k)
    in_some_real = np.zeros(len(fake), bool)
    recalled, covered, pairs = 0, 0, 0
    for rows, distances in _distance_blocks(real, fake):
        inside = distances <= real_radii[rows, None]
        in_some_real |= inside.any(axis=0)
        pairs += int(inside.sum())
        covered += int(inside.any(axis=1).sum())
        recalled += int((distances <= fake_radii).any(axis=1).sum())
    shares = (
        in_some_real.mean(),
        recalled / len(real),
        pairs / (k * len(fake)),
        covered / len(real),
    )
    return dict(zip(COLUMNS, map(float, shares), strict=True))


def compare(seed: int, real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """The values of `precision_recall_density_coverage`, as a metric's row asks."""
    del seed  # nothing is drawn
    return precision_recall_density_coverage(real, fake)


def check_counts(real_count: int, fake_count: int, k: int = NEIGHBOURS) -> None:
    """Refuses sets in which not every point has k neighbours.

    Raises:
        UserError: A set has no more than k images.
    """
    if min(real_count, fake_count) <= k:
        raise UserError(
            f"precision and recall with {k} neighbours of {real_count} real images and "
            f"{fake_count} samples are undefined; use at least {k + 1} of each"
        )


def _squared_radii(points: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of each point to its k-th neighbour, float64 `[n]`."""
    radii = np.empty(len(points))
    for rows, distances in _distance_blocks(points, points):
        own = np.arange(len(distances))
        distances[own, own + rows.start] = -1  # first in order, whatever rounding says
        radii[rows] = np.partition(distances, k, axis=1)[:, k]
    return radii * (1 + _TIE)


def _distance_blocks(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields slices of the rows of `x` with their squared distances to all of `y`, float64."""
    height = max(_BLOCK_ELEMENTS // len(y), 1)
    y_norms = np.einsum("ij,ij->i", y, y)
    starts = range(0, len(x), height)
    for start in tqdm(starts, desc="nearest neighbours", unit="blocks", delay=2, leave=False):
        block = x[start : start + height]
        norms = np.einsum("ij,ij->i", block, block)[:, None] + y_norms
        distances = norms - 2 * (block @ y.T)
        distances[distances <= _SAME_POINT * norms] = 0
        yield slice(start, start + len(block)), distances
