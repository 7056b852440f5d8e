"""A conditional network of dense layers for images of any shape, `network=own_network:mlp`."""

import math

import keras
from keras import layers

from common.networks import Network, NetworkSpec


def build_generator(spec: NetworkSpec) -> keras.Model:
    latents, labels = keras.Input((spec.latent_dim,)), keras.Input((), dtype="int64")
    x = layers.Concatenate()([latents, layers.Embedding(spec.classes, 8)(labels)])
    x = layers.Dense(32, "relu")(x)
    x = layers.Dense(math.prod(spec.image_shape), "tanh")(x)
    return keras.Model([latents, labels], layers.Reshape(spec.image_shape)(x))


def build_discriminator(spec: NetworkSpec) -> keras.Model:
    images, labels = keras.Input(spec.image_shape), keras.Input((), dtype="int64")
    x = layers.Dense(32, "relu")(layers.Flatten()(images))
    projection = layers.Dot(1)([x, layers.Embedding(spec.classes, 32)(labels)])
    return keras.Model([images, labels], layers.Add()([layers.Dense(1)(x), projection]))


mlp = Network(build_generator, build_discriminator, labelled=True)
