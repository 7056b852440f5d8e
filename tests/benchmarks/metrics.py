"""How much faster the metrics are than the original's way: `python -m tests.benchmarks.metrics`.

Prints a line of JSON for each of two comparisons. Both run on a frozen graph of 2015 with
Inception's layers in their real sizes and random weights, whose cost is that of the real one; the
other side is a Session of TensorFlow 1 on the untouched graph.

1. Images per second through the network, the two ways taking turns.
2. A whole evaluation, scaled down in proportion: here as many samples as the Inception Score needs,
   the first of which serve the FID, the real side being cached; there (specification, section 6)
   also the FID's own samples and the real images, again at each evaluation. The time of the FID's
   roots and eigenvalues does not shrink with the samples, which flatters ours at a small scale;
   the ratio of the passes alone is that of the network times 65,000 / 50,000.
"""

import dataclasses
import json
import tempfile
import time

import numpy as np
import scipy.special
import tensorflow as tf
from absl import app, flags

from common.data import ArraySource
from common.metrics import PROTOCOLS
from common.metrics.evaluation import Evaluator
from common.metrics.generated import GeneratedImages
from common.metrics.inception import InceptionNetwork
from common.metrics.inception_score import log_softmax
from tests.metrics.graphs import FullInception

_BATCH = flags.DEFINE_integer("batch", 32, "images that go through the network at a time")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "turns of each way")
_SCALE = flags.DEFINE_integer("scale", 200, "what the evaluation's counts are divided by")
SAMPLES, FID_SAMPLES, REAL = 50_000, 10_000, 5_000
COUNTS = ("is_samples", "fid_samples", "real_images")
SIZE = 32


class OriginalsWay:
    """The untouched graph in a Session, as the original ran it."""

    def __init__(self, graph):
        with tf.Graph().as_default() as self._graph:
            self._images = tf.compat.v1.placeholder(tf.float32, [None, None, None, 3])
            resized = tf.raw_ops.ResizeBilinear(
                images=self._images, size=[299, 299], align_corners=False, half_pixel_centers=False
            )
            outputs = tf.compat.v1.import_graph_def(
                graph, {"Mul": resized}, ["pool_3:0", "logits:0"], name=""
            )
        self._outputs = outputs
        self._session = tf.compat.v1.Session(graph=self._graph)

    def __call__(self, images):
        return self._session.run(self._outputs, {self._images: images})

    def evaluate(self, samples, others, real):
        """Inception Score of `samples`, FID of `others` against `real`: three sets, each passed."""
        passed = [self._pass(images) for images in (samples, others, real)]
        return _score(passed[0][1][:, :1000]), _distance_by_svd(passed[2][0], passed[1][0])

    def _pass(self, images):
        parts = [self(images[i : i + _BATCH.value]) for i in range(0, len(images), _BATCH.value)]
        features, logits = (np.concatenate(part) for part in zip(*parts, strict=True))
        return features[:, 0, 0].astype(np.float64), logits


def _score(logits, splits=10):
    scores = []
    for part in np.array_split(logits, splits):
        log_p = log_softmax(part)
        p = np.exp(log_p)
        divergence = p * log_p - scipy.special.xlogy(p, p.mean(axis=0))
        scores.append(np.exp(np.mean(np.sum(divergence, axis=1))))
    return float(np.mean(scores))


def _root_by_svd(matrix):
    left, singular, right = np.linalg.svd(matrix)
    return (left * np.where(singular < 1e-10, singular, np.sqrt(singular))) @ right


def _distance_by_svd(real, fake):
    a, b = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = _root_by_svd(a)
    product = _root_by_svd(root @ b @ root)
    difference = real.mean(axis=0) - fake.mean(axis=0)
    return float(difference @ difference + np.trace(a) + np.trace(b) - 2 * np.trace(product))


def compare_throughput(network, original, batch, rounds):
    """Images per second of both ways, the best of rounds in which they take turns."""
    images = np.random.default_rng(0).uniform(-1, 1, (batch, SIZE, SIZE, 3)).astype(np.float32)
    ways = {
        "ours": lambda: [output.numpy() for output in network(tf.constant(images))],
        "original": lambda: original(images),
    }
    features = [way()[0].reshape(batch, -1) for way in ways.values()]  # the first run compiles
    deviation = np.abs(features[0] - features[1]).max() / np.abs(features[1]).max()
    rates = {name: batch / seconds for name, seconds in _least_seconds(ways, rounds).items()}
    return {
        "benchmark": "network, images per second",
        **{name: round(rate, 2) for name, rate in rates.items()},
        "ratio": round(rates["ours"] / rates["original"], 3),
        "wanted": 1.3,
        "ratio_of_an_evaluations_passes": round(
            rates["ours"] / rates["original"] * (SAMPLES + FID_SAMPLES + REAL) / SAMPLES, 3
        ),
        "relative_deviation_of_features": float(deviation),
    }


def compare_evaluations(network, original, batch, scale, rounds):
    """Seconds of an evaluation either way, the real side of ours being cached."""
    rng = np.random.default_rng(1)
    counts = [count // scale for count in (SAMPLES, FID_SAMPLES, REAL)]
    samples, others = (rng.uniform(-1, 1, (n, SIZE, SIZE, 3)).astype("f4") for n in counts[:2])
    pixels = rng.integers(0, 256, (counts[2], SIZE, SIZE, 3), np.uint8)
    real = pixels.astype(np.float32) / 127.5 - 1
    with tempfile.TemporaryDirectory() as cache:
        evaluator = Evaluator(
            network,
            dataclasses.replace(PROTOCOLS["bsn"], **dict(zip(COUNTS, counts, strict=True))),
            reference=ArraySource("noise", "array", pixels, {"dataset": "noise"}),
            batch_size=batch,
            is_cached=True,
            cache_dir=cache,
        )
        _ = evaluator.real_statistics.covariance_root
    generated = GeneratedImages("samples", lambda numbers: samples[numbers], len(samples))
    ways = {
        "ours": lambda: evaluator.evaluate(generated),
        "original": lambda: original.evaluate(samples, others, real),
    }
    seconds = _least_seconds(ways, rounds)
    return {
        "benchmark": f"evaluation, 1/{scale} of the samples",
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "ratio": round(seconds["original"] / seconds["ours"], 3),
        "wanted": 1.8,
    }


def _least_seconds(ways, rounds):
    """Seconds that each way takes when it is least disturbed, the ways taking turns."""
    seconds = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(_seconds(way))
    return {name: min(times) for name, times in seconds.items()}


def _seconds(function):
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main(argv):
    del argv
    tf.config.optimizer.set_experimental_options({"remapping": False})  # as trainings do
    graph = FullInception().graph
    network = InceptionNetwork.from_graph(graph.SerializeToString(), {})
    original = OriginalsWay(graph)
    batch = _BATCH.value
    rounds = _ROUNDS.value
    print(json.dumps(compare_throughput(network, original, batch, rounds)), flush=True)
    comparison = compare_evaluations(network, original, batch, _SCALE.value, rounds)
    print(json.dumps(comparison), flush=True)


if __name__ == "__main__":
    app.run(main)
