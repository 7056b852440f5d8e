"""Stored statistics, as other tools write and read them: `.npz` with `mu` and `sigma`."""

from pathlib import Path

import numpy as np

from common.errors import UserError
from common.files import atomic_write
from common.metrics.frechet import GaussianStatistics
from common.parsers.npz import NpzFile


def read_statistics(file: NpzFile) -> GaussianStatistics:
    """Reads and checks stored statistics.

    Args:
        file: It has `mu` `[d]` and `sigma` `[d, d]`, real; `count`, if it is known.

    Raises:
        UserError: They are not statistics of features.
    """
    path, headers = file.path, file.headers
    length, square = headers["mu"].shape, headers["sigma"].shape
    if len(length) != 1 or not all(length) or square != 2 * length:
        raise UserError(
            f"{path} has mu {list(length)} and sigma {list(square)} instead of [d] and [d, d]; "
            "make it again"
        )
    if any(headers[name].dtype.kind not in "fiu" for name in ("mu", "sigma")):
        raise UserError(f"{path} has statistics that are not finite numbers; make it again")
    if "count" in headers and (headers["count"].shape or headers["count"].dtype.kind not in "iu"):
        raise UserError(f"{path} has a count that is not a number; make it again")
    mean, covariance = file.read("mu"), file.read("sigma")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{path} has statistics that are not finite numbers; make it again")
    if not np.allclose(covariance, covariance.T, rtol=1e-3, atol=1e-6 * np.abs(covariance).max()):
        raise UserError(f"{path} has a sigma that is not symmetric; make it again")
    count = int(file.read("count")) if "count" in headers else 0
    return GaussianStatistics(mean.astype(np.float64), covariance.astype(np.float64), count)


def write_statistics(path: Path, statistics: GaussianStatistics) -> None:
    """Writes `mu`, `sigma` (float64) and `count`.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        with atomic_write(path, "wb") as file:
            np.savez(file, mu=statistics.mean, sigma=statistics.covariance, count=statistics.count)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
