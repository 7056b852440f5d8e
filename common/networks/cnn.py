"""The CNN of the paper's CIFAR10, STL10 and CelebA experiments (specification, section 2)."""

import keras

from common.layers import LeakyReLU
from common.networks.blocks import Normalization, NormalizedBlocks, PlainBlocks, to_images

LEAKY_SLOPE = 0.1
IMAGE_SIZE_PER_MG = 8  # each network changes the resolution by 2, three times


def _generator_initializer(seed, kind):
    del kind
    return keras.initializers.RandomNormal(stddev=0.02, seed=seed)


def _discriminator_initializer(seed, kind):
    if kind == "dense":
        return keras.initializers.RandomNormal(stddev=0.02, seed=seed)
    return keras.initializers.TruncatedNormal(stddev=0.02, seed=seed)


def build_generator(mg, latent_dim=128, width=64, seed=0):
    """The CNN generator.

    Args:
        mg: height and width of the first feature map; the images are `8 * mg` pixels a side.
        latent_dim: length of the latent vector.
        width: channels of the last hidden layer; the first has `8 * width`. The paper's is 64.
        seed: integer that determines the initial values.

    Returns:
        A Keras model `[n, latent_dim] -> [n, 8 * mg, 8 * mg, 3]` in [-1, 1].
    """
    blocks = PlainBlocks(("generator", seed), _generator_initializer)
    z = x = keras.Input((latent_dim,), name="z")
    x = blocks.dense("layer0.linear", mg * mg * 8 * width)(x)
    x = blocks.batch_norm("layer0.batch_norm")(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Reshape((mg, mg, 8 * width))(x)
    for index, filters in enumerate((4 * width, 2 * width, width), start=1):
        x = blocks.deconv(f"layer{index}.deconv2d", filters, size=4, strides=2)(x)
        x = blocks.batch_norm(f"layer{index}.batch_norm")(x)
        x = keras.layers.ReLU()(x)
    x = blocks.deconv("layer4.deconv2d", 3, size=3, strides=1)(x)
    return keras.Model(z, to_images(x), name="generator")


def build_discriminator(mg, normalization: Normalization, width=64, seed=0):
    """The CNN discriminator.

    Args:
        mg: the images are `8 * mg` pixels a side.
        normalization: how its weights are normalised.
        width: channels of the first layer; the last convolution has `8 * width`. The paper's is 64.
        seed: integer that determines the initial values.

    Returns:
        A Keras model `[n, 8 * mg, 8 * mg, 3] -> [n, 1]`, unbounded scores.
    """
    images = x = keras.Input((IMAGE_SIZE_PER_MG * mg, IMAGE_SIZE_PER_MG * mg, 3), name="images")
    blocks = NormalizedBlocks(seed, _discriminator_initializer, normalization, images)
    for index, filters in enumerate((width, width, 2 * width, 2 * width, 4 * width, 4 * width)):
        size, strides = ((3, 1), (4, 2))[index % 2]
        x = blocks.conv(x, f"layer{index}.conv2d", filters, size, strides=strides)
        x = LeakyReLU(LEAKY_SLOPE)(x)
    x = blocks.conv(x, "layer6.conv2d", 8 * width, 3)
    x = LeakyReLU(LEAKY_SLOPE)(x)
    x = keras.layers.Flatten()(x)
    x = blocks.dense(x, "layer7.linear", 1)
    return keras.Model(images, x, name="discriminator")
