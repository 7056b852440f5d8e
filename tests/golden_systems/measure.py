"""How recorded numbers are drawn and compared."""

import zlib

import numpy as np


def random_state(text):
    """The generator that the golden runs draw from for the purpose `text`."""
    return np.random.RandomState(zlib.crc32(text.encode()))


def relative_deviation(ours, golden, least):
    """`|ours - golden| / max(|golden|, least)`.

    A NaN compares false with everything: it must count as the worst, not as the best.
    """
    deviation = abs(ours - golden) / max(abs(golden), least)
    return deviation if np.isfinite(deviation) else np.inf
