"""The compiled iteration against a straightforward one, written from the specification."""

import numpy as np
import pytest
import tensorflow as tf

from common.layers import BatchNorm, spectral_layers
from common.training.batches import BatchPipeline
from common.training.run import build_step
from common.training.step import TrainingStep
from tests.training.plain_layers import plain_copy
from tests.training.small import VARIANTS, noise_source, small_settings
from tests.training.straightforward import StraightforwardStep


def twins(variant, settings):
    """The engine's step and a straightforward one that starts from the same values."""
    step = build_step(variant, settings, root_seed=3)
    copies = [plain_copy(model) for model in (step.generator, step.discriminator)]
    return step, StraightforwardStep(variant, *copies, settings)


@pytest.mark.parametrize("name", VARIANTS)
def test_iterations_are_those_of_the_specification(name, float64):
    del float64
    variant = VARIANTS[name]
    settings = small_settings(variant)
    step, plain = twins(variant, settings)
    source = noise_source(step.generator.output_shape[1])
    pipeline = BatchPipeline(source, settings, root_seed=5)
    batches = iter(pipeline.discriminator_batches(0))
    redrawn = iter(pipeline.generator_latents(0))
    for _ in range(3):
        first, last = next(batches), next(batches)
        latents = next(redrawn) if variant.redraw_latents else None
        ours = [step.discriminator_step(first), step.last_steps(last, latents)]
        theirs = [plain.discriminator_step(b) for b in (first, last)]
        loss = plain.generator_step(last.latents if latents is None else latents)
        np.testing.assert_allclose(ours[1]["loss/g"], loss, rtol=1e-7)
        measured = 1 if variant.summary_after_update else 2
        for scalars, expected in list(zip(ours, theirs, strict=True))[:measured]:
            for tag, value in expected.items():
                np.testing.assert_allclose(scalars[tag], value, rtol=1e-7, err_msg=tag)
    for model, copy in (
        (step.generator, plain.generator),
        (step.discriminator, plain.discriminator),
    ):
        for a, b in zip(model.weights, copy.weights, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8, err_msg=a.path)


def test_the_resnets_summary_is_measured_after_the_update(float64):
    del float64
    variant = VARIANTS["no_gamma_resnet"]
    settings = small_settings(variant)
    step, plain = twins(variant, settings)
    pipeline = BatchPipeline(noise_source(32), settings, root_seed=5)
    batch = next(iter(pipeline.discriminator_batches(0)))
    scalars = step.last_steps(batch, next(iter(pipeline.generator_latents(0))))
    plain.discriminator_step(batch)
    fake = plain.generate(batch.latents, advance=False)
    expected = plain.discriminator_loss(batch.images, fake, batch.mix)
    np.testing.assert_allclose(scalars["loss/d"], expected, rtol=1e-7)
    real_slopes = plain.slopes(batch.images)
    np.testing.assert_allclose(scalars["d/min_real_slopes"], tf.reduce_min(real_slopes), rtol=1e-7)


@pytest.mark.parametrize(("name", "advances"), [("no_gamma_cnn", 3), ("no_gamma_resnet", 1)])
def test_moving_averages_advance_as_often_as_the_originals(name, advances):
    """Per iteration of two discriminator steps and a generator step."""
    variant = VARIANTS[name]
    settings = small_settings(variant)
    step = build_step(variant, settings, root_seed=3)
    batch_norm = next(x for x in step.generator.layers if isinstance(x, BatchNorm))
    batch_norm.moving_mean.assign(tf.fill(batch_norm.moving_mean.shape, 1e6))
    pipeline = BatchPipeline(noise_source(step.generator.output_shape[1]), settings, 5)
    batches = iter(pipeline.discriminator_batches(0))
    latents = next(iter(pipeline.generator_latents(0))) if variant.redraw_latents else None
    step.discriminator_step(next(batches))
    step.last_steps(next(batches), latents)
    kept = np.mean(batch_norm.moving_mean) / 1e6
    np.testing.assert_allclose(kept, 0.9**advances, rtol=1e-4)


def test_generator_steps_leave_the_discriminator_and_its_u():
    variant = VARIANTS["no_gamma_cnn"]
    step = build_step(variant, small_settings(variant), root_seed=3)
    latents = tf.random.stateless_normal([4, 8], [1, 2])
    before = step.discriminator.get_weights()
    step._update_generator(*step._generate(latents, 1))
    for old, new in zip(before, step.discriminator.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_optimisers_count_the_updates():
    variant = VARIANTS["no_gamma_cnn"]
    settings = small_settings(variant, n_dis=3)
    step = build_step(variant, settings, root_seed=3)
    batches = iter(BatchPipeline(noise_source(8), settings, 5).discriminator_batches(0))
    for _ in range(2):
        step.discriminator_step(next(batches))
    step.last_steps(next(batches))
    assert step.optimizers.discriminator.iterations.numpy() == 3
    assert step.optimizers.generator.iterations.numpy() == 1


@pytest.mark.parametrize(
    ("name", "count", "tags"),
    [
        ("no_gamma_cnn", 8, ["d/sigma0_0", "d/sigma6_2", "d/sigma7"]),
        ("same_gamma_cnn", 8, ["d/scale0", "loss/d/gp"]),
        ("diff_gamma_cnn", 8, ["d/scale0", "d/scale7"]),
        ("no_gamma_resnet", 19, ["d/sigma0_2_1", "d/sigma5_1_2", "d/sigma6"]),
    ],
)
def test_every_normalised_layer_has_its_tags(name, count, tags):
    variant = VARIANTS[name]
    step = build_step(variant, small_settings(variant), root_seed=3)
    assert len(spectral_layers(step.discriminator)) == count
    pipeline = BatchPipeline(
        noise_source(step.generator.output_shape[1]), small_settings(variant), 5
    )
    scalars = step.measure_discriminator(next(iter(pipeline.discriminator_batches(0))))
    if variant.loss == "wgan_gp":
        scalars = step.discriminator_step(next(iter(pipeline.discriminator_batches(0))))
    assert set(tags) <= scalars.keys()
    sigma = [tag for tag in scalars if tag.startswith("d/sigma")]
    assert len(sigma) == 3 * (count - 1) + 1


def test_a_missing_penalty_coefficient_is_refused():
    variant = VARIANTS["same_gamma_cnn"]
    step = build_step(variant, small_settings(variant), root_seed=3)
    with pytest.raises(ValueError, match="gp_coefficient"):
        TrainingStep(variant, step.generator, step.discriminator, step.optimizers)
