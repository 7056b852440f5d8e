"""The CNN of the paper's CIFAR10, STL10 and CelebA experiments (specification, section 2)."""

import keras

from common.layers import LeakyReLU
from common.networks import NetworkSpec
from common.networks.blocks import Blocks, to_images

LEAKY_SLOPE = 0.1


def _generator_initializer(seed: int, kind: str) -> keras.initializers.Initializer:
    del kind
    return keras.initializers.RandomNormal(stddev=0.02, seed=seed)


def _discriminator_initializer(seed: int, kind: str) -> keras.initializers.Initializer:
    if kind == "dense":
        return keras.initializers.RandomNormal(stddev=0.02, seed=seed)
    return keras.initializers.TruncatedNormal(stddev=0.02, seed=seed)


def build_generator(spec: NetworkSpec) -> keras.Model:
    """The CNN generator.

    Args:
        spec: of its settings, `mg` is height and width of the first feature map, `width` the
            channels of the last hidden layer (the first has `8 * width`; the paper's is 64).

    Returns:
        A Keras model `[n, latent_dim] -> [n, 8 * mg, 8 * mg, 3]` in [-1, 1].
    """
    mg, width = spec.settings.mg, spec.settings.width
    z = x = keras.Input((spec.latent_dim,), name="z")
    blocks = Blocks("generator", spec, _generator_initializer, z)
    x = blocks.dense(x, "layer0.linear", mg * mg * 8 * width)
    x = blocks.batch_norm(x, "layer0.batch_norm")
    x = keras.layers.ReLU()(x)
    x = keras.layers.Reshape((mg, mg, 8 * width))(x)
    for index, filters in enumerate((4 * width, 2 * width, width), start=1):
        x = blocks.deconv(x, f"layer{index}.deconv2d", filters, size=4, strides=2)
        x = blocks.batch_norm(x, f"layer{index}.batch_norm")
        x = keras.layers.ReLU()(x)
    x = blocks.deconv(x, "layer4.deconv2d", 3, size=3, strides=1)
    return keras.Model(z, to_images(x), name="generator")


def build_discriminator(spec: NetworkSpec) -> keras.Model:
    """The CNN discriminator.

    Args:
        spec: of its settings, `width` is the channels of the first layer (the last convolution has
            `8 * width`; the paper's is 64).

    Returns:
        A Keras model `[n, 8 * mg, 8 * mg, 3] -> [n, 1]`, unbounded scores.
    """
    width = spec.settings.width
    images = x = keras.Input(spec.image_shape, name="images")
    blocks = Blocks("discriminator", spec, _discriminator_initializer, images)
    widths = (width, width, 2 * width, 2 * width, 4 * width, 4 * width, 8 * width)
    for index, filters in enumerate(widths):
        size, strides = ((3, 1), (4, 2))[index % 2]
        x = blocks.conv(x, f"layer{index}.conv2d", filters, size, strides)
        if index > 0:
            x = blocks.features_norm(x, f"layer{index}.norm")
        x = LeakyReLU(LEAKY_SLOPE)(x)
    x = keras.layers.Flatten()(x)
    x = blocks.dense(x, "layer7.linear", 1)
    return keras.Model(images, x, name="discriminator")
