"""Random selections of images, each a function of what it is for and of a seed alone."""

import hashlib

import numpy as np


def generator_for(purpose: str, counter: int = 0) -> np.random.Generator:
    """Returns a counter-based generator of its own for a purpose.

    Args:
        purpose: Says what is drawn, and from which seed.
        counter: Number of the draw, at least 0; each has its own stream.
    """
    key = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:16], "big")
    # The counter's highest word: no stream ever runs into the next one.
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, counter]))


def select_real_images(
    total: int, count: int, run_seed: int, with_replacement: bool = False
) -> np.ndarray:
    """Draws the real images that a run's FID is measured against.

    Args:
        total: Number of images in the set.
        count: Number of images wanted.
        run_seed: The run's seed.
        with_replacement: Whether an image may be drawn several times.

    Returns:
        int64 indices, sorted. Without replacement they are different, and all of them if there are
        no more than `count`.
    """
    if total <= count and not with_replacement:
        return np.arange(total, dtype=np.int64)
    generator = generator_for(f"real images of the FID/{run_seed}")
    return np.sort(generator.choice(total, count, replace=with_replacement)).astype(np.int64)
