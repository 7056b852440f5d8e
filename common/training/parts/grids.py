"""Sample grids: what fixed latents (and a row per class) look like as training goes on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.configuration.settings import Settings
from common.results.grid import make_grid, save_png
from common.training.iterations import Row
from common.training.parts.divergence import DivergenceWatch
from common.training.sampling import Sampler
from common.training.schedule import is_due


class Grids:
    """Writes `sample/global_id-<id>.png`; a `Part`.

    Args:
        settings: the job's `Settings`.
        folder: where the images go.
        sampler: makes them.
        at_a_time: how many are made at a time.
        watch: refuses images that are not finite.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        sampler: Sampler,
        at_a_time: int,
        watch: DivergenceWatch,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._sampler = sampler
        self._at_a_time = at_a_time
        self._watch = watch

    def resume(self, done: int, written: Mapping[str, Any]) -> None:
        """Draws the grid before the first iteration, where that is wanted; later ones come again
        by themselves."""
        del written
        if done < 0 and self._settings.initial_metrics:
            self._draw(-1)

    def is_due(self, global_id: int) -> bool:
        """Whether a grid is due."""
        return is_due(self._settings.vis_freq, global_id)

    def after(self, first: int, rows: Sequence[Row]) -> None:
        """Draws a grid if it is due.

        Raises:
            DivergedError: its images are not finite.
        """
        last = first + len(rows) - 1
        if self.is_due(last):
            self._draw(last)

    def _draw(self, global_id: int) -> None:
        rows, columns = self._settings.vis_num_h, self._settings.vis_num_w
        images = self._sampler.grid(rows, columns, self._at_a_time)
        self._watch.refuse_samples(global_id, images)
        path = self._folder / f"global_id-{global_id}.png"
        save_png(path, make_grid(images, rows, columns))
