"""The ResNet of the paper's ImageNet experiments, 128x128 pixels (FIDELITY section 2)."""

import keras

from common.layers import SumPooling
from common.networks import NetworkSpec
from common.networks.blocks import Blocks, to_images

_UP_WIDTHS = (16, 8, 4, 2, 1)
_DOWN_WIDTHS = (1, 2, 4, 8, 16)


def _initializer(seed: int, kind: str) -> keras.initializers.Initializer:
    return keras.initializers.VarianceScaling(
        scale=2.0 if kind == "residual" else 1.0, mode="fan_avg", distribution="uniform", seed=seed
    )


def _up_block(blocks: Blocks, x: keras.KerasTensor, name: str, filters: int) -> keras.KerasTensor:
    shortcut = blocks.residual_conv(x, f"{name}.shortcut.conv2d", filters, 1, "up")
    for part, resample in (("block1", "up"), ("block2", None)):
        x = blocks.batch_norm(x, f"{name}.{part}.batch_norm")
        x = keras.layers.ReLU()(x)
        x = blocks.residual_conv(x, f"{name}.{part}.conv2d", filters, 3, resample)
    return keras.layers.Add()([x, shortcut])


def build_generator(spec: NetworkSpec) -> keras.Model:
    """The ResNet generator.

    Args:
        spec: of its settings, `mg` is height and width of the first feature map, `width` the
            channels of the last block (the first has `16 * width`; the paper's is 64).

    Returns:
        A Keras model `[n, latent_dim] -> [n, 32 * mg, 32 * mg, 3]` in [-1, 1].
    """
    mg, width = spec.settings.mg, spec.settings.width
    z = x = keras.Input((spec.latent_dim,), name="z")
    blocks = Blocks("generator", spec, _initializer, z)
    x = blocks.dense(x, "layer0.linear", mg * mg * 16 * width)
    x = keras.layers.Reshape((mg, mg, 16 * width))(x)
    for index, factor in enumerate(_UP_WIDTHS, start=1):
        x = _up_block(blocks, x, f"layer{index}.up_resnet", factor * width)
    x = blocks.batch_norm(x, "layer6.batch_norm")
    x = blocks.conv(keras.layers.ReLU()(x), "layer6.conv2d", 3, 3)
    return keras.Model(z, to_images(x), name="generator")


def _down_block(
    blocks: Blocks,
    x: keras.KerasTensor,
    name: str,
    filters: int,
    *,
    first: bool = False,
    halve: bool = True,
) -> keras.KerasTensor:
    resample = "down" if halve else None
    # The original pools before the first shortcut's 1x1 convolution, and after those of the others,
    # which is the same.
    shortcut = blocks.residual_conv(x, f"{name}.shortcut.conv2d", filters, 1, resample)
    if not first:
        x = blocks.features_norm(x, f"{name}.block1.norm")
        x = keras.layers.ReLU()(x)
    x = blocks.residual_conv(x, f"{name}.block1.conv2d", filters, 3)
    x = blocks.features_norm(x, f"{name}.block2.norm")
    x = keras.layers.ReLU()(x)
    x = blocks.residual_conv(x, f"{name}.block2.conv2d", filters, 3, resample)
    return keras.layers.Add()([x, shortcut])


def build_discriminator(spec: NetworkSpec) -> keras.Model:
    """The ResNet discriminator.

    Args:
        spec: of its settings, `width` is the channels of the first block (the last has
            `16 * width`; the paper's is 64).

    Returns:
        A Keras model `[n, 32 * mg, 32 * mg, 3] -> [n, 1]`, unbounded scores.
    """
    width = spec.settings.width
    images = x = keras.Input(spec.image_shape, name="images")
    blocks = Blocks("discriminator", spec, _initializer, images)
    for index, factor in enumerate(_DOWN_WIDTHS):
        name = f"layer{index}.down_resnet"
        x = _down_block(blocks, x, name, factor * width, first=index == 0)
    x = _down_block(blocks, x, "layer5.down_resnet", 16 * width, halve=False)
    x = blocks.features_norm(x, "layer6.norm")
    x = keras.layers.ReLU()(x)
    x = SumPooling()(x)
    x = blocks.dense(x, "layer6.linear", 1)
    return keras.Model(images, x, name="discriminator")
