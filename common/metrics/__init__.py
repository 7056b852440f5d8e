"""Metrics of generated images (specification, section 6)."""

import os
from collections.abc import Callable

from common.errors import UserError
from common.metrics.digits import open_digits
from common.metrics.errors import InvalidSamplesError, NonFiniteFeaturesError
from common.metrics.evaluation import METRICS, Evaluation, Evaluator
from common.metrics.feature_network import FeatureNetwork
from common.metrics.inception import open_inception

__all__ = [
    "METRICS",
    "NETWORKS",
    "Evaluation",
    "Evaluator",
    "FeatureNetwork",
    "InvalidSamplesError",
    "NonFiniteFeaturesError",
    "open_network",
]

PathLike = str | os.PathLike

NETWORKS: dict[str, Callable[[PathLike | None, PathLike | None, str | None], FeatureNetwork]] = {
    "inception": open_inception,
    "digits": lambda inception_path, cache_dir, inception_sha256: open_digits(cache_dir),
}


def open_network(
    name: str,
    *,
    inception_path: PathLike | None = None,
    cache_dir: PathLike | None = None,
    inception_sha256: str | None = None,
) -> FeatureNetwork:
    """Opens a feature network, so that whatever it lacks is found before a training starts.

    Args:
        name: `"inception"`, which published values are computed with, or `"digits"`, which
            needs no download and whose columns carry a prefix.
        inception_path: The frozen Inception graph, archive, `.pb` or `.pth`; None to take it from
            the cache or download it there.
        cache_dir: Root of the cache; None for Keras' own, `$KERAS_HOME` or `~/.keras`.
        inception_sha256: Its expected SHA-256; None for what it was when it was first used.

    Returns:
        The network.

    Raises:
        UserError: The name is unknown, or the network's files are missing or unusable.
    """
    if name not in NETWORKS:
        raise UserError(f"unknown feature network {name!r}; choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name](inception_path, cache_dir, inception_sha256)
