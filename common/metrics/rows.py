"""The metrics and the feature networks, each a declared row."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.choices import Choices, Lazy
from common.errors import UserError
from common.metrics.metric import Metric

if TYPE_CHECKING:
    from common.metrics.feature_network import FeatureNetwork

PathLike = str | os.PathLike[str]

# In the order of the columns.
METRICS = Choices(
    "metric",
    Metric,
    {
        "is": Metric(
            columns=("inception_score_mean", "inception_score_std"),
            stream=Lazy("common.metrics.inception_score:build"),
            reads="logits",
            reference="none",
            least=1,
        ),
        "fid": Metric(
            columns=("fid",),
            stream=Lazy("common.metrics.frechet:build"),
            reference="statistics",
        ),
        "kid": Metric(
            columns=("kid_mean", "kid_std"),
            compare=Lazy("common.metrics.kernel_distance:compare"),
        ),
        "prdc": Metric(
            columns=("precision", "recall", "density", "coverage"),
            compare=Lazy("common.metrics.manifold:compare"),
            least=6,  # five neighbours beside each image
        ),
    },
)
DEFAULT_METRICS = ("is", "fid")


@dataclass(frozen=True)
class NetworkFiles:
    """Where a feature network may find its files.

    Attributes:
        path: Its weights; None for the cache, or a download into it.
        sha256: Their expected SHA-256; None for what it was when they were first used.
        cache_dir: Root of the cache; None for Keras' own, `$KERAS_HOME` or `~/.keras`.
    """

    path: PathLike | None = None
    sha256: str | None = None
    cache_dir: PathLike | None = None


@dataclass(frozen=True, kw_only=True)
class FeatureNetworkRow:
    """A feature network.

    Attributes:
        open: Makes the network of its files; a UserError says what it lacks.
        column_prefix: The network's own (see `FeatureNetwork`).
    """

    open: Callable[[NetworkFiles], "FeatureNetwork"]
    column_prefix: str


FEATURE_NETWORKS = Choices(
    "feature_network",
    FeatureNetworkRow,
    {
        "inception": FeatureNetworkRow(
            open=Lazy("common.metrics.inception:open_by_files"), column_prefix=""
        ),
        "digits": FeatureNetworkRow(
            open=Lazy("common.metrics.digits:open_by_files"), column_prefix="digits_"
        ),
    },
)
DEFAULT_NETWORK = "inception"


def chosen_metrics(names: Sequence[str]) -> dict[str, Metric]:
    """The rows of some metrics, in the order of the columns: a user's own come last.

    Args:
        names: Of `METRICS`, or import paths, in any order.

    Raises:
        UserError: There is no such metric, or two have a column of the same name.
    """
    ordered = [name for name in METRICS if name in names]
    ordered += [name for name in dict.fromkeys(names) if name not in METRICS]
    chosen = {name: METRICS[name] for name in ordered}
    columns = ["global_id", *(column for row in chosen.values() for column in row.columns)]
    if double := sorted({column for column in columns if columns.count(column) > 1}):
        raise UserError(
            f"metrics {', '.join(ordered)}: the column {', '.join(double)} would be there twice; "
            "rename that of your own"
        )
    return chosen


def parse_metrics(text: str) -> tuple[str, ...]:
    """The metrics' names of a command line: `is,fid`, or `none`.

    Raises:
        UserError: There is no such metric.
    """
    names = () if text == "none" else tuple(text.split(","))
    chosen_metrics(names)
    return names


def open_network(
    name: str,
    *,
    inception_path: PathLike | None = None,
    cache_dir: PathLike | None = None,
    inception_sha256: str | None = None,
) -> "FeatureNetwork":
    """Opens a feature network, so that whatever it lacks is found before a training starts.

    Args:
        name: Of `FEATURE_NETWORKS`, or an import path: `"inception"`, which published values are
            computed with, or `"digits"`, which needs no download and whose columns have a prefix.
        inception_path: The frozen Inception graph, archive, `.pb` or `.pth`; None to take it from
            the cache or download it there.
        cache_dir: Root of the cache; None for Keras' own, `$KERAS_HOME` or `~/.keras`.
        inception_sha256: Its expected SHA-256; None for what it was when it was first used.

    Returns:
        The network.

    Raises:
        UserError: The name is unknown, or the network's files are missing or unusable.
    """
    return FEATURE_NETWORKS[name].open(NetworkFiles(inception_path, inception_sha256, cache_dir))
