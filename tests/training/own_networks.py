"""Networks of users' kinds, by which tests try what the engine makes of them."""

import math

import keras
import tensorflow as tf
from keras import layers

from common.layers import BatchNorm, SpectralNormDense, SpectralNormEmbedding
from common.networks import Network


def _images(spec, x):
    return layers.Reshape(spec.image_shape)(layers.Dense(math.prod(spec.image_shape), "tanh")(x))


def labelled_generator(spec):
    latents, labels = keras.Input((spec.latent_dim,)), keras.Input((), dtype="int64")
    x = layers.Concatenate()([latents, layers.Embedding(spec.classes, 4)(labels)])
    x = BatchNorm()(layers.Dense(16)(x))
    return keras.Model([latents, labels], _images(spec, layers.ReLU()(x)))


def labelled_discriminator(spec):
    images, labels = keras.Input(spec.image_shape), keras.Input((), dtype="int64")
    x = SpectralNormDense(layers.Dense(16), u_seed=1)(layers.Flatten()(images))
    embedded = SpectralNormEmbedding(layers.Embedding(spec.classes, 4), u_seed=2)(labels)
    x = layers.Concatenate()([layers.ReLU()(x), embedded])
    return keras.Model([images, labels], SpectralNormDense(layers.Dense(1), u_seed=3)(x))


def plain_generator(spec):
    latents = keras.Input((spec.latent_dim,))
    return keras.Model(latents, _images(spec, layers.Dense(16, "relu")(latents)))


def plain_discriminator(spec):
    images = keras.Input(spec.image_shape)
    x = SpectralNormDense(layers.Dense(16), u_seed=1)(layers.Flatten()(images))
    return keras.Model(images, SpectralNormDense(layers.Dense(1), u_seed=3)(layers.ReLU()(x)))


def dropout_discriminator(spec):
    images = keras.Input(spec.image_shape)
    x = layers.Dropout(0.5)(layers.Dense(16, "relu")(layers.Flatten()(images)))
    return keras.Model(images, layers.Dense(1)(x))


class Subclassed(keras.Model):
    """A generator whose graph cannot be seen, and that counts its passes."""

    def __init__(self, spec):
        super().__init__()
        self.hidden = layers.Dense(16, "relu")
        self.last = layers.Dense(math.prod(spec.image_shape), "tanh")
        self.shape_of_images = spec.image_shape
        self.passes = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, latents, training=False):
        if training:
            self.passes.assign(self.passes + 1)
        return tf.reshape(self.last(self.hidden(latents)), [-1, *self.shape_of_images])


def sequential_discriminator(spec):
    del spec
    return keras.Sequential([layers.Flatten(), layers.Dense(8, "relu"), layers.Dense(1)])


class Noise(layers.Layer):
    """Draws anew in every pass."""

    def call(self, inputs):
        return inputs + 0.1 * keras.random.normal(keras.ops.shape(inputs))

    def compute_output_shape(self, inputs_shape):
        return inputs_shape


def noisy_generator(spec):
    latents = keras.Input((spec.latent_dim,))
    return keras.Model(latents, _images(spec, Noise(name="noise")(latents)))


def regularised_discriminator(spec):
    images = keras.Input(spec.image_shape)
    x = layers.Dense(1, kernel_regularizer="l2")(layers.Flatten()(images))
    return keras.Model(images, x)


labelled = Network(labelled_generator, labelled_discriminator, labelled=True)
dropout = Network(plain_generator, dropout_discriminator)
subclassed = Network(Subclassed, plain_discriminator)
undeclared = Network(Subclassed, sequential_discriminator)
noisy = Network(noisy_generator, plain_discriminator)
regularised = Network(plain_generator, regularised_discriminator)
