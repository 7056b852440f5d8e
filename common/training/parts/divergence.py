"""Training that has diverged: found where it shows first, and told with the place it began."""

import math

import keras
import numpy as np

from common.results.run_folder import RunFolder
from common.training.checkpoints import Checkpoints
from common.training.divergence import first_few, where_it_began
from common.training.errors import DivergedError
from common.training.iterations import Row


class DivergenceWatch:
    """Refuses values that are not finite.

    Args:
        discriminator, generator: the networks, in the order in which they are updated.
        folder: the run's `RunFolder`.
        checkpoints: its `Checkpoints`.
    """

    def __init__(
        self,
        discriminator: keras.Model,
        generator: keras.Model,
        folder: RunFolder,
        checkpoints: Checkpoints,
    ) -> None:
        self._models = (discriminator, generator)
        self._folder = folder
        self._checkpoints = checkpoints

    def refuse_values(self, global_id: int, row: Row) -> None:
        """Looks at what an iteration logs.

        Raises:
            DivergedError: a value is NaN or infinite.
        """
        bad = [tag for tag, value in row.scalars.items() if not math.isfinite(value)]
        if bad:
            bad.sort(key=lambda tag: "sigma" not in tag)
            what = f"iteration {global_id}: not finite: {first_few(bad)}"
            raise self.error(what, where_it_began(row.diagnosis))

    def refuse_weights(self, global_id: int) -> None:
        """Looks at all weights and moving averages.

        Raises:
            DivergedError: one is NaN or infinite.
        """
        if any(map(_layers_not_finite, self._models)):
            raise self.error(f"iteration {global_id}: weights or averages are not finite")

    def refuse_samples(self, global_id: int, images: np.ndarray) -> None:
        """Looks at generated images.

        Raises:
            DivergedError: a value is NaN or infinite.
        """
        if not np.isfinite(images).all():
            raise self.error(f"iteration {global_id}: samples are not finite")

    def error(self, what: str, began: str | None = None) -> DivergedError:
        """The error to raise: what was found, and where it began, if that is known."""
        if began is None:
            layers = [f"{m.name} {first_few(_layers_not_finite(m))}" for m in self._models]
            place = f"Layers whose weights are not finite now: {'; '.join(layers)}"
        else:
            place = f"It began in {began}"
        return DivergedError(
            f"{what}; training has diverged. {place}. What was measured up to then is in "
            f"{self._folder.path}; the last good checkpoint is "
            f"{self._checkpoints.latest or 'none'}."
        )


def _layers_not_finite(model: keras.Model) -> list[str]:
    """Names of the layers that have weights with NaN or infinity, in the order of the layers."""
    return [
        layer.name
        for layer in model.layers
        if not all(np.isfinite(weight).all() for weight in layer.get_weights())
    ]
