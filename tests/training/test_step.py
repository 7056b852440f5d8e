"""The fused step against the plain one, and the plain one against the algorithm's words."""

import numpy as np
import pytest
import tensorflow as tf

from common.layers import BatchNorm, spectral_layers
from common.networks.build import Networks
from common.training.batches import BatchPipeline
from common.training.fused_step import FusedStep
from common.training.plain_step import PlainStep
from tests.training.plain_layers import plain_copy
from tests.training.small import (
    VARIANTS,
    small_networks,
    small_settings,
    small_step,
    source_for,
)


def twins(settings):
    """The fused step, and a plain one that starts from the same values in layers of Keras'."""
    networks = small_networks(settings)
    copies = [model and plain_copy(model) for model in networks]
    return FusedStep(settings, networks), PlainStep(settings, Networks(*copies))


def pipeline_for(settings):
    return BatchPipeline(source_for(settings), settings, 5)


CHOICES = {
    "one penalty more": {"penalty": "r1", "d_gp_coe": 3.0},
    "one-sided": {"penalty": "one_sided", "d_gp_coe": 3.0},
    "Wasserstein": {"loss": "wasserstein"},
    "non-saturating": {"loss": "non_saturating"},
    "least squares": {"loss": "least_squares"},
    "no normalisation": {"sn_mode": "none"},
    "no normalisation, gammas": {"sn_mode": "none", "gamma": "per_layer"},
    "scale and shared gamma": {"gamma": "shared"},
    "constant u and v": {"sn_gradient": "constant", "sn_iterations": 2, "sn_epsilon": "maximum"},
    "the convolution's own norm": {"sn_mode": "CSN"},
    "layer norm": {"sn_mode": "LN"},
    "labels": {"network": "tests.training.own_networks:labelled"},
    "labels and a penalty": {
        "network": "tests.training.own_networks:labelled",
        "penalty": "wgan_gp",
        "d_gp_coe": 3.0,
    },
    "PyTorch's Adam": {"adam_form": "pytorch"},
    "uniform latents": {"latents": "uniform"},
}
CASES = [
    *(pytest.param(name, {}, id=name) for name in VARIANTS),
    *(pytest.param("no_gamma_cnn", changes, id=name) for name, changes in CHOICES.items()),
    pytest.param(
        "no_gamma_resnet",
        {"sn_mode": "CSN"},
        id="the norm in residual blocks",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_the_fused_step_computes_what_the_plain_one_does(name, changes, float64):
    del float64
    settings = small_settings(VARIANTS[name], step="fused", **changes)
    step, plain = twins(settings)
    pipeline = pipeline_for(settings)
    batches = iter(pipeline.discriminator_batches(0))
    redrawn = iter(pipeline.generator_batches(0))
    for _ in range(2):
        first, last = next(batches), next(batches)
        generator_batch = next(redrawn) if settings.redraw_latents else None
        for ours, theirs in (
            (step.discriminator_step(first), plain.discriminator_step(first)),
            (step.last_steps(last, generator_batch), plain.last_steps(last, generator_batch)),
        ):
            assert ours.scalars.keys() == theirs.scalars.keys()
            assert ours.diagnosis.keys() == theirs.diagnosis.keys()
            for tag, value in theirs.scalars.items():
                if "slopes" in tag and "loss/g" not in theirs.scalars:
                    continue  # which the plain step measures only where they may be logged
                np.testing.assert_allclose(ours.scalars[tag], value, rtol=1e-6, err_msg=tag)
    for model, copy in (
        (step.generator, plain.generator),
        (step.discriminator, plain.discriminator),
    ):
        for a, b in zip(model.weights, copy.weights, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8, err_msg=a.path)


def test_the_resnets_summary_is_measured_after_the_update(float64):
    del float64
    settings = small_settings(VARIANTS["no_gamma_resnet"])
    step, plain = twins(settings)
    pipeline = pipeline_for(settings)
    batch = next(iter(pipeline.discriminator_batches(0)))
    scalars = step.last_steps(batch, next(iter(pipeline.generator_batches(0)))).scalars
    before = plain.discriminator_step(batch).scalars
    expected = plain.measure_discriminator(batch).scalars
    assert abs(before["loss/d"] - expected["loss/d"]) > 1e-3
    for tag in ("loss/d", "d/min_real_slopes", "d/sigma0_0_0"):
        np.testing.assert_allclose(scalars[tag], expected[tag], rtol=1e-7)


@pytest.mark.parametrize("mode", ["plain", "fused"])
@pytest.mark.parametrize(("name", "advances"), [("no_gamma_cnn", 3), ("no_gamma_resnet", 1)])
def test_moving_averages_advance_as_often_as_the_originals(name, advances, mode):
    """Per iteration of two discriminator steps and a generator step."""
    settings = small_settings(VARIANTS[name], step=mode)
    step = small_step(settings)
    batch_norm = next(x for x in step.generator.layers if isinstance(x, BatchNorm))
    batch_norm.moving_mean.assign(tf.fill(batch_norm.moving_mean.shape, 1e6))
    pipeline = pipeline_for(settings)
    batches = iter(pipeline.discriminator_batches(0))
    redrawn = next(iter(pipeline.generator_batches(0))) if settings.redraw_latents else None
    step.discriminator_step(next(batches))
    step.last_steps(next(batches), redrawn)
    kept = np.mean(batch_norm.moving_mean) / 1e6
    np.testing.assert_allclose(kept, 0.9**advances, rtol=1e-4)


@pytest.mark.parametrize("mode", ["plain", "fused"])
def test_generator_steps_leave_the_discriminator_and_its_u(mode):
    settings = small_settings(VARIANTS["no_gamma_resnet"], step=mode)
    step = small_step(settings)
    batch = next(iter(pipeline_for(settings).generator_batches(0)))
    before = step.discriminator.get_weights()
    step._update_generator(batch)
    for old, new in zip(before, step.discriminator.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("advance", ["update", "pass"])
def test_u_advances_once_an_update_or_in_every_pass(advance):
    """Without learning, the vectors after an iteration are those after so many power iterations."""
    changes = {"sn_mode": "SN", "sn_advance": advance, "d_lr": 0.0, "n_dis": 1}
    settings = small_settings(VARIANTS["no_gamma_cnn"], **changes)
    step = small_step(settings)
    layer = spectral_layers(step.discriminator)[2]
    kernel = layer.layer.kernel.numpy()
    matrix, u = kernel.reshape(-1, kernel.shape[-1]), layer.u[0].numpy()
    step.last_steps(next(iter(pipeline_for(settings).discriminator_batches(0))))
    for _ in range({"update": 1, "pass": 3}[advance]):
        v = u @ matrix.T
        u = v / np.linalg.norm(v) @ matrix
        u /= np.linalg.norm(u)
    np.testing.assert_allclose(layer.u[0], u, rtol=1e-4, atol=1e-5)


def test_a_generators_u_advances_after_its_updates():
    settings = small_settings(VARIANTS["no_gamma_cnn"], g_sn_mode="SN")
    step = small_step(settings)
    layers = spectral_layers(step.generator)
    assert len(layers) == 5
    before = [layer.u[0].numpy() for layer in layers]
    batches = iter(pipeline_for(settings).discriminator_batches(0))
    step.discriminator_step(next(batches))
    for layer, u in zip(layers, before, strict=True):
        np.testing.assert_array_equal(layer.u[0], u)
    step.last_steps(next(batches))
    assert not any(np.array_equal(x.u[0], u) for x, u in zip(layers, before, strict=True))


def test_optimisers_count_the_updates():
    settings = small_settings(VARIANTS["no_gamma_cnn"], n_dis=3)
    step = small_step(settings)
    batches = iter(pipeline_for(settings).discriminator_batches(0))
    for _ in range(2):
        step.discriminator_step(next(batches))
    step.last_steps(next(batches))
    assert step.optimizers.discriminator.iterations.numpy() == 3
    assert step.optimizers.generator.iterations.numpy() == 1


def test_the_moving_average_of_the_generator_is_that_of_the_formula():
    """A copy until it begins, then `decay * average + (1 - decay) * weights`; batch norm's own
    averages are always copied."""
    settings = small_settings(VARIANTS["no_gamma_cnn"], ema_decay=0.75, ema_start=2)
    step = small_step(settings)
    batches = iter(pipeline_for(settings).discriminator_batches(0))
    for updates in range(1, 5):
        old = [variable.numpy() for variable in step.average.variables]
        step.last_steps(next(batches))
        step.update_average()
        weights = [variable.numpy() for variable in step.generator.variables]
        for variable, before, now in zip(step.average.variables, old, weights, strict=True):
            decay = 0.75 if variable.trainable and updates > 2 else 0.0
            expected = decay * before + (1 - decay) * now
            np.testing.assert_allclose(variable, expected, rtol=1e-6, err_msg=variable.path)
    assert step.networks.sampled is step.average


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
    settings = small_settings(VARIANTS[name])
    step = small_step(settings)
    assert len(spectral_layers(step.discriminator)) == count
    batch = next(iter(pipeline_for(settings).discriminator_batches(0)))
    scalars = step.measure_discriminator(batch).scalars
    assert set(tags) <= scalars.keys()
    sigma = [tag for tag in scalars if tag.startswith("d/sigma")]
    assert len(sigma) == 3 * (count - 1) + 1


CONSTANT = """
import tensorflow as tf
from common.losses import Loss

constant = Loss(
    real=lambda scores: tf.reduce_mean(scores),
    fake=lambda scores: -tf.reduce_mean(scores),
    generator=lambda scores: tf.reduce_mean(tf.stop_gradient(scores)),
)
"""


@pytest.mark.parametrize("mode", ["plain", "fused"])
def test_a_loss_without_a_gradient_updates_nothing(tmp_path, monkeypatch, mode):
    (tmp_path / "constant_losses.py").write_text(CONSTANT)
    monkeypatch.syspath_prepend(tmp_path)
    settings = small_settings(VARIANTS["no_gamma_cnn"], step=mode, loss="constant_losses:constant")
    step = small_step(settings)
    before = [variable.numpy() for variable in step.generator.trainable_variables]
    step.last_steps(next(iter(pipeline_for(settings).discriminator_batches(0))))
    for variable, value in zip(step.generator.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
