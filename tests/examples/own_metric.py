"""A metric: how far apart samples' features are on average, `--metrics=own_metric:diversity`."""

import numpy as np

from common.metrics import Metric


def mean_distance(seed: int, real: None, fake: np.ndarray) -> dict[str, float]:
    squares = (fake**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * fake @ fake.T, 0))
    return {"diversity": float(distances.sum() / (len(fake) * (len(fake) - 1)))}


diversity = Metric(columns=("diversity",), compare=mean_distance, reference="none")
