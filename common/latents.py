"""What latents are drawn from: rows found by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from common.choices import Choices


@dataclass(frozen=True)
class LatentDistribution:
    """A distribution of latent vectors.

    Attributes:
        draw: `f(stream, shape, *counters, dtype=...)`, from a `common.randomness.RandomStream` to a
            tensor of `shape`.
    """

    draw: Callable[..., Any]


def _normal(stream: Any, shape: Any, *counters: Any, dtype: Any) -> Any:
    return stream.normal(shape, *counters, dtype=dtype)


def _uniform(stream: Any, shape: Any, *counters: Any, dtype: Any) -> Any:
    return 2 * stream.uniform(shape, *counters, dtype=dtype) - 1


def _uniform_positive(stream: Any, shape: Any, *counters: Any, dtype: Any) -> Any:
    return stream.uniform(shape, *counters, dtype=dtype)


LATENTS = Choices(
    "latents",
    LatentDistribution,
    {
        "normal": LatentDistribution(_normal),
        "uniform": LatentDistribution(_uniform),  # [-1, 1)
        "uniform_positive": LatentDistribution(_uniform_positive),  # [0, 1)
    },
)
