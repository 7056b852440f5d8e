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


def _upsample(x):
    return keras.layers.UpSampling2D(2, interpolation="nearest")(x)


def _mean_pool(x):
    return keras.layers.AveragePooling2D(2)(x)


def _up_block(blocks, x, name, filters):
    shortcut = blocks.conv(f"{name}.shortcut.conv2d", filters, 1)(_upsample(x))
    for part, resize in (("block1", _upsample), ("block2", lambda x: x)):
        x = blocks.batch_norm(f"{name}.{part}.batch_norm")(x)
        x = resize(keras.layers.ReLU()(x))
        x = blocks.conv(f"{name}.{part}.conv2d", filters, 3, kind="residual")(x)
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
    shortcut = x
    if first:
        shortcut = blocks.conv(_mean_pool(shortcut), f"{name}.shortcut.conv2d", filters, 1)
    else:
        x = keras.layers.ReLU()(x)
    x = blocks.conv(x, f"{name}.block1.conv2d", filters, 3, kind="residual")
    x = keras.layers.ReLU()(x)
    x = blocks.conv(x, f"{name}.block2.conv2d", filters, 3, kind="residual")
    if halve:
        x = _mean_pool(x)
    if not first:
        shortcut = blocks.conv(shortcut, f"{name}.shortcut.conv2d", filters, 1)
        shortcut = _mean_pool(shortcut) if halve else shortcut
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
