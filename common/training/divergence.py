"""Where values ceased to be finite: what every update brings for it, and what that tells.

Beside its scalars, an update returns one number per layer for each of these: the sum of squares of
its weights before the update, its spectral norm where it is normalised, and the sum of squares of
its gradients (but for gradients under loss scaling, which expects them to overflow). In float32 a
sum of squares is not finite from a norm of 1.8e19 on.
"""

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

Diagnosis = dict[str, float]


def sums_of_squares(
    kind: str, network: str, model: keras.Model, tensors: Sequence[tf.Tensor]
) -> dict[str, tf.Tensor]:
    """`{name: scalar}`, one for each layer that has trainable variables, in the model's order.

    Args:
        kind: "weights", "updated weights" or "gradients".
        network: "generator" or "discriminator".
        model: it, a Keras model.
        tensors: what to square and sum, in the order of the model's trainable variables.
    """
    halves = {
        id(variable): tf.nn.l2_loss(tensor)
        for variable, tensor in zip(model.trainable_variables, tensors, strict=True)
    }
    return {
        f"{kind}/{network}/{layer.name}": 2
        * tf.reduce_sum(tf.stack([halves[id(variable)] for variable in layer.trainable_variables]))
        for layer in model.layers
        if layer.trainable_variables
    }


def spectral_norms(sigmas: dict[str, list[tf.Tensor]]) -> dict[str, tf.Tensor]:
    """`{name: scalar}`, one for each normalised layer.

    Args:
        sigmas: `{layer's name: what its sigmas() returns}`, the normaliser first.
    """
    return {
        f"spectral norm/discriminator/{name}": normalizer
        for name, (normalizer, *_) in sigmas.items()
    }


def where_it_began(steps: Sequence[Diagnosis]) -> str | None:
    """Names the place of an iteration where values ceased to be finite.

    Weights and spectral norms that are not finite (or norms of 0, by which weights are divided)
    are all named. What is not finite in a gradient goes on to the layers before, so that it began
    at the last one concerned; unless that is the network's last, for then it came from the forward
    pass or the loss. The gradient penalty's gradients go both ways: there it is a guess.

    Args:
        steps: for each discriminator step `{name: float}` of this module's functions; with the last
            one's, those of the generator, whose weights were the same in all.

    Returns:
        E.g. "the gradients of discriminator layer3.conv2d", or None if all are finite.
    """
    last = steps[-1]
    groups = [
        (last, "weights", "generator"),
        *(
            (step, kind, "discriminator")
            for step in steps
            for kind in ("weights", "spectral norm", "gradients")
        ),
        (last, "updated weights", "discriminator"),
        (last, "gradients", "generator"),
    ]
    return next(filter(None, (_trouble(*group) for group in groups)), None)


def _trouble(values: Diagnosis, kind: str, network: str) -> str | None:
    prefix = f"{kind}/{network}/"
    layers = [name.removeprefix(prefix) for name in values if name.startswith(prefix)]
    bad = [
        layer
        for layer in layers
        if not math.isfinite(value := values[prefix + layer])
        or (kind == "spectral norm" and value == 0)
    ]
    if not bad:
        return None
    if kind != "gradients":
        return f"the {kind} of {network} {first_few(bad)}"
    if bad[-1] == layers[-1]:
        return f"the forward pass or the loss: the gradients of {network} {bad[-1]} are not finite"
    return f"the gradients of {network} {bad[-1]}"


def first_few(names: Sequence[str], count: int = 4) -> str:
    """The first names of a list, and how many more there are."""
    rest = len(names) - count
    return (", ".join(names[:count]) or "none") + (f" and {rest} more" if rest > 0 else "")
