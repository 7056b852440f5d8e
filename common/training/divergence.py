"""Where values ceased to be finite: what every iteration computes for it, and what that tells.

With its summaries an iteration returns, for each update, one sum of squares per layer: of the
layer's weights before the update, and of its gradients.
"""

import math

import tensorflow as tf

_PREFIX = "sum of squares"


def sums_of_squares(kind, network, model, tensors):
    """`{tag: scalar}`, one for each layer that has trainable variables, in the model's order.

    Args:
        kind: "weights" or "gradients".
        network: "generator" or "discriminator".
        model: it, a Keras model.
        tensors: what to square and sum, in the order of the model's trainable variables.
    """
    halves = {
        variable.path: tf.nn.l2_loss(tensor)
        for variable, tensor in zip(model.trainable_variables, tensors, strict=True)
    }
    return {
        f"{_PREFIX}/{kind}/{network}/{layer.name}": 2
        * tf.reduce_sum(tf.stack([halves[variable.path] for variable in layer.trainable_variables]))
        for layer in model.layers
        if layer.trainable_variables
    }


def is_sum(tag):
    """Whether a tag is of `sums_of_squares`, rather than of what is logged."""
    return tag.startswith(f"{_PREFIX}/")


def where_it_began(steps):
    """Names the place of an iteration where values ceased to be finite.

    Gradients come back from a network's last layer, and what is not finite goes on to the layers
    before: it began at the last of those concerned.

    Args:
        steps: for each discriminator step `{tag: float}` of `sums_of_squares`; with the last one's,
            the generator's, whose weights were the same in all.

    Returns:
        E.g. "the gradients of discriminator layer3.conv2d", or None if all are finite.
    """
    groups = [
        (steps[-1], "weights", "generator"),
        *((step, kind, "discriminator") for step in steps for kind in ("weights", "gradients")),
        (steps[-1], "gradients", "generator"),
    ]
    return next(filter(None, (_last_not_finite(*group) for group in groups)), None)


def _last_not_finite(sums, kind, network):
    prefix = f"{_PREFIX}/{kind}/{network}/"
    layers = [tag for tag in sums if tag.startswith(prefix)]
    bad = [tag for tag in layers if not math.isfinite(sums[tag])]
    if not bad:
        return None
    is_output = kind == "gradients" and bad[-1] == layers[-1]
    hint = ", its last layer: perhaps in the loss" if is_output else ""
    return f"the {kind} of {network} {bad[-1].removeprefix(prefix)}{hint}"
