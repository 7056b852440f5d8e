"""Stored statistics, as other tools write and read them: `.npz` with `mu` and `sigma`."""

import zipfile
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.files import atomic_write
from common.metrics.cache import UNREADABLE
from common.metrics.frechet import GaussianStatistics

# Images are rarely packed tenfold; a few kilobytes can pretend to be gigabytes.
_MAX_RATIO = 100
_ALWAYS_UNPACKED = 64 * 2**20


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays of a `.npz` file, without unpickling.

    Raises:
        UserError: The file is not one, is damaged, holds Python objects, or unpacks to more than 64
            MiB and a hundred times its size.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            _refuse_bomb(path, archive.zip)
            arrays = {name: archive[name] for name in archive.files}
    except UNREADABLE as error:
        raise UserError(f"{path} is not a readable .npz file ({error}); make it again") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # NumPy gives the bytes of any other member
            raise UserError(f"{path}: {name} in it is not an array; make it again")
    return arrays


def _refuse_bomb(path: Path, archive: zipfile.ZipFile) -> None:
    size = sum(member.file_size for member in archive.infolist())
    if size > _ALWAYS_UNPACKED + _MAX_RATIO * path.stat().st_size:
        raise UserError(
            f"{path} unpacks to {size:,} bytes, more than {_MAX_RATIO} times its size; if that is "
            "right, store it uncompressed (numpy.savez)"
        )


def statistics_from(path: Path, arrays: dict[str, np.ndarray]) -> GaussianStatistics:
    """Checks statistics that were read from a file.

    Args:
        path: The file, for messages.
        arrays: `mu` `[d]` and `sigma` `[d, d]`, real; `count`, if it is known.

    Raises:
        UserError: They are not statistics of features.
    """
    mean, covariance = arrays["mu"], arrays["sigma"]
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UserError(
            f"{path} has mu {list(mean.shape)} and sigma {list(covariance.shape)} instead of "
            "[d] and [d, d]; make it again"
        )
    if any(a.dtype.kind not in "fiu" or not np.isfinite(a).all() for a in (mean, covariance)):
        raise UserError(f"{path} has statistics that are not finite numbers; make it again")
    count = arrays.get("count", np.array(0))
    if count.shape != () or count.dtype.kind not in "iu":
        raise UserError(f"{path} has a count that is not a number; make it again")
    if not np.allclose(covariance, covariance.T, rtol=1e-3, atol=1e-6 * np.abs(covariance).max()):
        raise UserError(f"{path} has a sigma that is not symmetric; make it again")
    return GaussianStatistics(mean.astype(np.float64), covariance.astype(np.float64), int(count))


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
