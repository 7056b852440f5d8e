"""Evaluates a generator on one device and on two, in a process whose argument is a cache folder.

Prints the largest difference of the metrics, and how many devices generated.
"""

import dataclasses
import sys

import tensorflow as tf

from common.metrics import PROTOCOLS
from common.metrics.evaluation import Evaluator
from common.metrics.generated import GeneratedImages
from common.training.devices import on_all_replicas, open_strategy
from tests.training.small import VARIANTS, noise_source, small_settings, small_step
from tests.training.test_trainer import MeanColours


def main(folder):
    strategy = open_strategy(2)
    variant = VARIANTS["no_gamma_cnn"]
    with strategy.scope():
        step = small_step(small_settings(variant), 3)
    latents = tf.random.stateless_normal([40, 8], [1, 2])
    seen = []

    def generate(latents):
        seen.append((tf.distribute.in_cross_replica_context(), latents.device))
        return step.generator(latents, training=False)

    protocol = dataclasses.replace(PROTOCOLS["bsn"], is_samples=40, fid_samples=30, real_images=20)

    def evaluate(spread):
        batch = spread(generate)
        evaluator = Evaluator(
            MeanColours(),
            protocol,
            reference=noise_source(8),
            seed=1,
            batch_size=7,
            is_cached=True,
            cache_dir=folder,
            spread=spread,
        )
        samples = GeneratedImages("samples", lambda n: batch(tf.gather(latents, n)), 40)
        return evaluator.evaluate(samples).values

    alone = evaluate(lambda function: function)
    shared = evaluate(lambda function: on_all_replicas(strategy, function))
    difference = max(abs(alone[name] - shared[name]) for name in alone)
    print(difference, len({device for cross_replica, device in seen if not cross_replica}))


if __name__ == "__main__":
    main(sys.argv[1])
