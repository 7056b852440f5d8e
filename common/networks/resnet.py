"""The ResNet of the paper's ImageNet experiments, 128x128 pixels (specification, section 2)."""

import keras

from common.networks.blocks import Normalization, NormalizedBlocks, PlainBlocks, to_images

IMAGE_SIZE_PER_MG = 32  # five blocks change the resolution by 2
_UP_WIDTHS = (16, 8, 4, 2, 1)
_DOWN_WIDTHS = (1, 2, 4, 8, 16)


def _initializer(seed, kind):
    return keras.initializers.VarianceScaling(
        scale=2.0 if kind == "residual" else 1.0, mode="fan_avg", distribution="uniform", seed=seed
    )


def _up_block(blocks, x, name, filters):
    shortcut = blocks.residual_conv(f"{name}.shortcut.conv2d", filters, 1, "up")(x)
    for part, resample in (("block1", "up"), ("block2", None)):
        x = blocks.batch_norm(f"{name}.{part}.batch_norm")(x)
        x = keras.layers.ReLU()(x)
        x = blocks.residual_conv(f"{name}.{part}.conv2d", filters, 3, resample)(x)
    return keras.layers.Add()([x, shortcut])


def build_generator(mg=4, latent_dim=128, width=64, seed=0):
    """The ResNet generator.

    Args:
        mg: height and width of the first feature map; the images are `32 * mg` pixels a side.
        latent_dim: length of the latent vector.
        width: channels of the last block; the first has `16 * width`. The paper's is 64.
        seed: integer that determines the initial values.

    Returns:
        A Keras model `[n, latent_dim] -> [n, 32 * mg, 32 * mg, 3]` in [-1, 1].
    """
    blocks = PlainBlocks(("generator", seed), _initializer)
    z = x = keras.Input((latent_dim,), name="z")
    x = blocks.dense("layer0.linear", mg * mg * 16 * width)(x)
    x = keras.layers.Reshape((mg, mg, 16 * width))(x)
    for index, factor in enumerate(_UP_WIDTHS, start=1):
        x = _up_block(blocks, x, f"layer{index}.up_resnet", factor * width)
    x = blocks.batch_norm("layer6.batch_norm")(x)
    x = blocks.conv("layer6.conv2d", 3, 3)(keras.layers.ReLU()(x))
    return keras.Model(z, to_images(x), name="generator")


def _down_block(blocks, x, name, filters, *, first=False, halve=True):
    resample = "down" if halve else None
    # The original pools before the first shortcut's 1x1 convolution, and after those of the others,
    # which is the same.
    shortcut = blocks.residual_conv(x, f"{name}.shortcut.conv2d", filters, 1, resample=resample)
    if not first:
        x = keras.layers.ReLU()(x)
    x = blocks.residual_conv(x, f"{name}.block1.conv2d", filters, 3)
    x = keras.layers.ReLU()(x)
    x = blocks.residual_conv(x, f"{name}.block2.conv2d", filters, 3, resample=resample)
    return keras.layers.Add()([x, shortcut])


def build_discriminator(mg, normalization: Normalization, width=64, seed=0):
    """The ResNet discriminator.

    Args:
        mg: the images are `32 * mg` pixels a side.
        normalization: how its weights are normalised.
        width: channels of the first block; the last has `16 * width`. The paper's is 64.
        seed: integer that determines the initial values.

    Returns:
        A Keras model `[n, 32 * mg, 32 * mg, 3] -> [n, 1]`, unbounded scores.
    """
    images = x = keras.Input((IMAGE_SIZE_PER_MG * mg, IMAGE_SIZE_PER_MG * mg, 3), name="images")
    blocks = NormalizedBlocks(seed, _initializer, normalization, images)
    for index, factor in enumerate(_DOWN_WIDTHS):
        name = f"layer{index}.down_resnet"
        x = _down_block(blocks, x, name, factor * width, first=index == 0)
    x = _down_block(blocks, x, "layer5.down_resnet", 16 * width, halve=False)
    x = keras.layers.ReLU()(x)
    x = keras.ops.sum(x, axis=(1, 2))
    x = blocks.dense(x, "layer6.linear", 1)
    return keras.Model(images, x, name="discriminator")
