"""What generators make, as sets of images."""

from collections.abc import Callable
from typing import Any

import numpy as np


class GeneratedImages:
    """A generator's images as a set: each is a function of its number.

    It is read like an `ImageSource`, but for the images being floats in [-1, 1], which are not
    rounded. Whatever a generator takes, latents and labels, is drawn by number beforehand.
    """

    def __init__(
        self,
        name: str,
        generate: Callable[[np.ndarray], Any],
        count: int,
        record: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        """Keeps what it is given; nothing is generated yet.

        Args:
            name: For messages.
            generate: From int64 numbers `[n]` to images `[n, H, W, 3]`, float in [-1, 1].
            count: Number of images.
            record: JSON-able description of the generator and what it is given.
            seed: Of whatever else an evaluation of them draws; that of the generator's run.
        """
        self.name = name
        self.seed = seed
        self.record = {**(record or {}), "images": count}
        self._generate = generate
        self._count = count

    def __len__(self) -> int:
        return self._count

    def read(self, indices: np.ndarray) -> Any:
        """Generates images by number, float `[n, H, W, 3]`, a tensor or an array."""
        return self._generate(indices)
