"""The scalars that a training iteration logs, under the original's tags (specification, 7)."""

import keras
import tensorflow as tf

from common.layers import Gamma, spectral_layers
from common.networks.blocks import summary_index


def slope_scalars(real: tf.Tensor, fake: tf.Tensor) -> dict[str, tf.Tensor]:
    """`{tag: scalar}` of the discriminator's input slopes `[n]` on real and generated images."""
    statistics = {"mean": tf.reduce_mean, "min": tf.reduce_min, "max": tf.reduce_max}
    return {
        f"d/{name}_{kind}_slopes": reduce(values)
        for kind, values in (("real", real), ("fake", fake))
        for name, reduce in statistics.items()
    }


def sigma_scalars(sigmas: dict[str, list[tf.Tensor]]) -> dict[str, tf.Tensor]:
    """`{tag: scalar}` of every normalised layer's sigmas.

    Args:
        sigmas: `{layer's name: what its sigmas() returns}`.
    """
    scalars = {}
    for name, values in sigmas.items():
        tag = f"d/sigma{summary_index(name)}"
        if len(values) == 1:
            scalars[tag] = values[0]
        else:
            scalars |= {f"{tag}_{index}": sigma for index, sigma in enumerate(values)}
    return scalars


def gamma_scalars(discriminator: keras.Model) -> dict[str, tf.Tensor]:
    """`{tag: scalar}` of the gammas, where there are any."""
    shared = [layer.gamma for layer in discriminator.layers if isinstance(layer, Gamma)]
    scalars = {f"d/scale{index}": gamma for index, gamma in enumerate(shared)}
    for layer in spectral_layers(discriminator):
        if layer.own_gamma is not None:
            scalars[f"d/scale{summary_index(layer.name)}"] = layer.own_gamma
    return {tag: tf.convert_to_tensor(gamma) for tag, gamma in scalars.items()}
