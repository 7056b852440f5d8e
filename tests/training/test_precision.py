"""Mixed precision and XLA train like float32 without them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.training.batches import BatchPipeline
from common.training.iterations import CompiledIterations
from common.training.run import set_precision
from tests.training.small import VARIANTS, noise_source, small_settings, small_step


@pytest.fixture(autouse=True)
def _float32_afterwards():
    yield
    set_precision("float32")


def train(name, precision="float32", jit_compile=False, iterations=4, width=2):
    set_precision(precision)
    variant = VARIANTS[name]
    settings = small_settings(variant, g_lr=1e-4, d_lr=1e-4, width=width, jit_compile=jit_compile)
    step = small_step(settings, 3)
    pipeline = BatchPipeline(noise_source(step.generator.output_shape[1]), settings, root_seed=5)
    strategy = tf.distribute.get_strategy()
    compiled = CompiledIterations(strategy, step, pipeline, settings.n_dis, 0)
    return step, [row.scalars for row in compiled.run(iterations)]


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("no_gamma_cnn", "mixed_bfloat16"),
        pytest.param("no_gamma_cnn", "mixed_float16", marks=pytest.mark.slow),
        pytest.param("diff_gamma_cnn", "mixed_bfloat16", marks=pytest.mark.slow),
        pytest.param("diff_gamma_cnn", "mixed_float16", marks=pytest.mark.slow),
    ],
)
def test_mixed_precision_stays_near_float32(name, precision):
    width = 16  # with fewer channels the rounding errors of a norm do not average out
    step, rows = train(name, precision, width=width)
    reference, expected = train(name, width=width)
    start, _ = train(name, iterations=0, width=width)
    # Under loss scaling gradients may overflow: their norms are not logged.
    unscaled = {"gradient_norm/d", "gradient_norm/g"} if precision == "mixed_float16" else set()
    for row, wanted in zip(rows, expected, strict=True):
        assert wanted.keys() - row.keys() == unscaled
        for tag, value in row.items():
            tolerance = 0.05 * max(1.0, abs(wanted[tag]))
            assert abs(value - wanted[tag]) < tolerance, (tag, value, wanted[tag])
    assert {v.dtype for v in step.discriminator.weights} == {"float32"}
    ours, theirs, before = (
        np.concatenate([v.numpy().ravel() for v in s.discriminator.trainable_variables])
        for s in (step, reference, start)
    )
    # Rounding turns steps around where a gradient is tiny; the others are the same.
    assert np.abs(ours - theirs).sum() < 0.3 * np.abs(theirs - before).sum()


def test_float16_scales_its_losses():
    step, _ = train("no_gamma_cnn", "mixed_float16", iterations=1)
    for optimizer in (step.optimizers.generator, step.optimizers.discriminator):
        assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        assert optimizer.scale_loss(tf.constant(1.0)) > 1
    assert step.optimizers.discriminator.inner_optimizer.iterations.numpy() == 2


@pytest.mark.parametrize(
    "name", ["no_gamma_cnn", pytest.param("same_gamma_cnn", marks=pytest.mark.slow)]
)
def test_xla_computes_the_same(name):
    _, rows = train(name, jit_compile=True)
    _, expected = train(name)
    for row, wanted in zip(rows, expected, strict=True):
        for tag, value in wanted.items():
            np.testing.assert_allclose(row[tag], value, rtol=2e-3, atol=2e-3, err_msg=tag)
