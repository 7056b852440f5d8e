"""Discriminators of any layers get the gradient of ordinary automatic differentiation.

The fused step weights gradients image by image, which only the project's layers know how to take.
Whatever else a discriminator is made of must be seen, and get the plain step.
"""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.errors import UserError
from common.layers import SpectralNormConv2D, SpectralNormDense
from common.losses import LOSSES
from common.networks.build import Networks
from common.training.batches import BatchPipeline
from common.training.fused_step import why_not_fused
from common.training.steps import choose_step
from tests.training.small import VARIANTS, noise_source, small_networks, small_settings

SHAPE = (8, 8, 3)


@keras.saving.register_keras_serializable(package="tests")
class Scaled(keras.layers.Layer):
    """A user's own layer: a factor for each channel."""

    def build(self, inputs_shape):
        self.factor = self.add_weight(shape=(inputs_shape[-1],), initializer="ones", name="factor")

    def call(self, inputs):
        return inputs * self.factor


class MinibatchDeviation(keras.layers.Layer):
    """A user's own layer without variables that couples the images of a batch."""

    def call(self, inputs):
        deviation = tf.reduce_mean(tf.math.reduce_std(inputs, axis=0))
        return tf.concat([inputs, tf.zeros_like(inputs[:, :1]) + deviation], axis=1)

    def compute_output_shape(self, inputs_shape):
        return (inputs_shape[0], inputs_shape[1] + 1)


def _normalized_conv():
    return SpectralNormConv2D(keras.layers.Conv2D(4, 3, 2, padding="same"), u_seed=1, name="conv")


def discriminator(*between, conv=None, head=None):
    """A small one with layers between a convolution and the last dense layer."""
    dense = head or SpectralNormDense(keras.layers.Dense(1), u_seed=2, name="head")
    layers = [keras.Input(SHAPE), conv or _normalized_conv(), *between]
    if not any(isinstance(x, (keras.layers.Flatten, MinibatchDeviation)) for x in between):
        layers.append(keras.layers.Flatten())
    return keras.Sequential([*layers, dense])


def conditional():
    images, labels = keras.Input(SHAPE), keras.Input((), dtype="int64")
    features = keras.layers.Flatten()(_normalized_conv()(images))
    embedded = keras.layers.Embedding(5, features.shape[-1], name="labels")(labels)
    projection = keras.layers.Dot(1)([features, embedded])
    score = SpectralNormDense(keras.layers.Dense(1), u_seed=2, name="head")(features)
    return keras.Model([images, labels], keras.layers.Add()([score, projection]))


class Subclassed(keras.Model):
    """Its calls may do anything."""

    def __init__(self):
        super().__init__()
        self.inner = discriminator()

    def call(self, images, training=False):
        return self.inner(images[::-1], training=training)

    @property
    def output_shape(self):
        return (None, 1)


DISCRIMINATORS = {
    "layer normalisation": (
        lambda: discriminator(keras.layers.LayerNormalization(name="norm")), "norm"
    ),
    "batch normalisation": (
        lambda: discriminator(keras.layers.BatchNormalization(name="norm")), "norm"
    ),
    "a plain dense layer": (
        lambda: discriminator(head=keras.layers.Dense(1, name="plain")), "plain"
    ),
    "a plain convolution": (
        lambda: discriminator(conv=keras.layers.Conv2D(4, 3, name="plain")), "plain"
    ),
    "a user's own layer": (lambda: discriminator(Scaled(name="own")), "own"),
    "an embedding": (conditional, "labels"),
    "a layer that couples images": (
        lambda: discriminator(keras.layers.Flatten(), MinibatchDeviation(name="deviation")),
        "deviation",
    ),
    "a subclassed model": (Subclassed, ""),
}  # fmt: skip


def make(build, **changes):
    settings = small_settings(VARIANTS["no_gamma_cnn"], **changes)
    return settings, Networks(small_networks(settings).generator, build(), None)


def batch_for(settings, conditional):
    pipeline = BatchPipeline(noise_source(8), settings, 5)
    batch = next(iter(pipeline.discriminator_batches(0)))
    if not conditional:
        return batch
    return batch._replace(labels=tf.constant([0, 1, 4, 1]), fake_labels=tf.constant([2, 1, 1, 3]))


def by_automatic_differentiation(settings, model, batch, fake):
    loss = LOSSES[settings.loss]
    state = [(v, v.numpy()) for v in model.variables if not v.trainable]
    with tf.GradientTape() as tape:
        inputs = [(fake, batch.fake_labels), (batch.images, batch.labels)]
        on_fake, on_real = (model(x if y is None else [x, y], training=True) for x, y in inputs)
        total = loss.fake(on_fake) + loss.real(on_real)
    gradients = tape.gradient(total, [v.value for v in model.trainable_variables])
    for variable, value in state:
        variable.assign(value)
    return [tf.convert_to_tensor(gradient) for gradient in gradients]


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_gradients_are_those_of_automatic_differentiation(name, float64):
    del float64
    build, layer = DISCRIMINATORS[name]
    settings, networks = make(build)
    step, why = choose_step(settings, networks)
    assert step.name == "plain"
    assert layer in why
    batch = batch_for(settings, build is conditional)
    fake = networks.generator(batch.latents, training=True)
    expected = by_automatic_differentiation(settings, networks.discriminator, batch, fake)
    _, gradients = step._discriminator_gradients(batch, fake, True)
    assert max(np.abs(gradient).max() for gradient in expected) > 1e-3
    for variable, ours, theirs in zip(
        networks.discriminator.trainable_variables, gradients, expected, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12, err_msg=variable.path)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_the_fused_step_is_refused_and_the_layer_is_named(name):
    build, layer = DISCRIMINATORS[name]
    settings, networks = make(build, step="fused")
    with pytest.raises(UserError, match=rf"step=fused .* discriminator.*{layer}.*step=plain"):
        choose_step(settings, networks)


def test_a_discriminator_that_takes_image_weights_gets_the_fused_step_and_its_gradients(float64):
    del float64
    settings, networks = make(discriminator)
    step, _ = choose_step(settings, networks)
    assert step.name == "fused"
    batch = batch_for(settings, conditional=False)
    fake = networks.generator(batch.latents, training=True)
    expected = by_automatic_differentiation(settings, networks.discriminator, batch, fake)
    _, gradients = step._discriminator_gradients(batch, fake, True)
    for ours, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sn_mode": "SN", "sn_advance": "pass"}, "advances u in every pass"),
        ({"sn_mode": "BN"}, "layer1.norm"),
    ],
)
def test_choices_that_need_the_plain_step_get_it(changes, reason):
    settings = small_settings(VARIANTS["no_gamma_cnn"], **changes)
    step, why = choose_step(settings, small_networks(settings))
    assert (step.name, reason in why) == ("plain", True)


def test_a_generator_that_counts_its_own_passes_gets_the_plain_step():
    """The fused step runs one pass for two; the moving averages advance by two all the same."""
    settings = small_settings(VARIANTS["no_gamma_cnn"], n_dis=1)

    def build():
        layers = [
            keras.Input((8,)),
            keras.layers.Dense(8 * 8 * 3),
            keras.layers.BatchNormalization(momentum=0.5, name="own_norm"),
            keras.layers.Reshape(SHAPE),
        ]
        return keras.Sequential(layers, name="generator")

    networks = Networks(build(), small_networks(settings).discriminator, None)
    step, why = choose_step(settings, networks)
    assert step.name == "plain"
    assert "own_norm" in why
    norm = networks.generator.get_layer("own_norm")
    norm.moving_mean.assign(tf.fill(norm.moving_mean.shape, 1e6))
    step.last_steps(batch_for(settings, conditional=False))
    np.testing.assert_allclose(norm.moving_mean, 1e6 * 0.5**2, rtol=1e-4)


def test_state_is_kept_where_discriminator_steps_must_not_advance_it():
    settings = small_settings(VARIANTS["no_gamma_cnn"], n_dis=1, batch_norm_in_d_steps=False)
    layers = [
        keras.Input((8,)),
        keras.layers.Dense(8 * 8 * 3),
        keras.layers.BatchNormalization(momentum=0.5, name="own_norm"),
        keras.layers.Reshape(SHAPE),
    ]
    generator = keras.Sequential(layers, name="generator")
    step, _ = choose_step(settings, Networks(generator, discriminator(), None))
    norm = generator.get_layer("own_norm")
    norm.moving_mean.assign(tf.fill(norm.moving_mean.shape, 1e6))
    step.last_steps(batch_for(settings, conditional=False))
    np.testing.assert_allclose(norm.moving_mean, 1e6 * 0.5, rtol=1e-4)


OWN = "tests.training.own_networks"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("subclassed", "is not a functional or sequential model"),
        ("noisy", r"generator noise \(Noise\) is not known to be the same in every pass"),
        ("dropout", "Dense"),  # its discriminator's, which wins over the dropout behind it
    ],
)
def test_networks_that_tell_passes_apart_get_the_plain_step(name, reason):
    settings = small_settings(VARIANTS["no_gamma_cnn"], network=f"{OWN}:{name}", sn_mode="none")
    networks = small_networks(settings)
    assert re.search(reason, why_not_fused(settings, networks))
    assert choose_step(settings, networks).step.name == "plain"


class Counting(keras.layers.Layer):
    """It declares what is not so: its passes change a state of its own."""

    takes_image_weights = True

    def build(self, inputs_shape):
        self.passes = self.add_weight(shape=(), initializer="zeros", trainable=False, name="passes")

    def call(self, inputs, training=False):
        if training:
            self.passes.assign(self.passes + 1)
        return inputs


def test_a_discriminators_own_state_keeps_it_from_the_fused_step():
    settings, networks = make(lambda: discriminator(Counting(name="counting")))
    assert "passes" in why_not_fused(settings, networks)


@pytest.mark.parametrize(("advances", "passes"), [(True, 3), (False, 1)])
def test_state_on_a_subclassed_model_itself_counts_as_often_as_passes_should(advances, passes):
    changes = {"network": f"{OWN}:undeclared", "sn_mode": "none", "n_dis": 2}
    settings = small_settings(VARIANTS["no_gamma_cnn"], batch_norm_in_d_steps=advances, **changes)
    networks = small_networks(settings)
    step = choose_step(settings, networks).step
    batches = iter(BatchPipeline(noise_source(8), settings, 5).discriminator_batches(0))
    step.discriminator_step(next(batches))
    step.last_steps(next(batches))
    assert networks.generator.passes.numpy() == passes


def test_losses_of_layers_are_refused_since_training_would_ignore_them():
    changes = {"network": f"{OWN}:regularised", "sn_mode": "none"}
    settings = small_settings(VARIANTS["no_gamma_cnn"], **changes)
    with pytest.raises(UserError, match="losses of its own"):
        choose_step(settings, small_networks(settings))
