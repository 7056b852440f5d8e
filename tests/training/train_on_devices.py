"""Trains five iterations of a small job on some devices and saves what came of it.

`python -m tests.training.train_on_devices RUN DEVICES frozen|training OUTPUT.npz`, a process of
its own because devices are set up once. Frozen means batch norm in inference mode. With `TF_CONFIG`
in the environment it is one worker of several.
"""

import sys

import keras
import numpy as np

from common.training.batches import BatchPipeline
from common.training.devices import open_strategy
from common.training.iterations import CompiledIterations
from common.training.run import set_precision
from tests.training.small import RUNS, small_settings, small_step, source_for

ITERATIONS = 5
STEP_SEED, BATCH_SEED = 3, 5


class Frozen(keras.Model):
    """A generator whose batch norm is in inference mode, where replicas do not differ."""

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def call(self, latents, training=False):
        del training
        return self.generator(latents, training=False)


def main(name, devices, mode, output):
    strategy = open_strategy(int(devices))
    set_precision("float64")
    variant, own = RUNS[name]
    settings = small_settings(variant, **own)
    with strategy.scope():
        step = small_step(settings, STEP_SEED)
    generator = step.generator
    if mode == "frozen":
        step.generator = Frozen(generator)
        step.generator.build((None, settings.latent_dim))
    pipeline = BatchPipeline(source_for(settings), settings, BATCH_SEED)
    rows = CompiledIterations(strategy, step, pipeline, settings.n_dis, 0).run(ITERATIONS)
    weights = {
        f"{model.name}/{v.path}": _same_on_all_replicas(strategy, v)
        for model in (generator, step.discriminator, step.average)
        if model is not None
        for v in model.weights
    }
    scalars = {tag: [row.scalars[tag] for row in rows] for tag in rows[0].scalars}
    np.savez(output, **weights, **scalars)


def _same_on_all_replicas(strategy, variable):
    first, *others = strategy.experimental_local_results(variable.value)
    for other in others:
        np.testing.assert_array_equal(other, first, err_msg=variable.path)
    return np.asarray(first)


if __name__ == "__main__":
    main(*sys.argv[1:])
