"""How real images are drawn for the steps: rows found by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from common.choices import Choices, Lazy


@dataclass(frozen=True)
class Sampling:
    """A way to draw the indices of real images.

    Attributes:
        open: `f(total=..., size=..., keeps_last=..., root_seed=...)` -> an object with
            `indices(iteration, step, n_dis)`, int64 `[size]` or fewer, see `common.training.draws`.
        in_epochs: whether it goes through all images before it takes one again, so that there is a
            last batch.
    """

    open: Callable[..., Any]
    in_epochs: bool = False


SAMPLINGS = Choices(
    "sampling",
    Sampling,
    {
        "with_replacement": Sampling(Lazy("common.training.draws:WithReplacement")),
        "shuffled": Sampling(Lazy("common.training.draws:Shuffled"), in_epochs=True),
    },
)
