"""Which generators may run one training-mode pass in place of two on the same latents.

The two must compute the same: no layer may draw anything, nor keep state that counts passes but for
`BatchNorm`, whose advances are said from outside (`moving_average_advances`).
"""

import keras

from common.keras_private import graph_calls, is_plain_model
from common.layers.batch_norm import BatchNorm
from common.layers.image_wise import (
    IMAGE_WISE,
    WRAPPED,
    declares_image_weights,
    named,
    reason_in_activation,
)
from common.layers.reparametrized import Reparametrized

_REPEATABLE = IMAGE_WISE | WRAPPED | {BatchNorm}


def layer_that_tells_passes_apart(model: keras.Layer) -> str | None:
    """Why two passes of a model on the same inputs may differ, or change its state twice.

    Args:
        model: a built Keras model.

    Returns:
        A sentence that names the first layer that is to blame, or None.
    """
    if not is_plain_model(model):
        return f"{named(model)} is not a functional or sequential model, whose graph can be seen."
    for call in graph_calls(model):
        layer = call.operation
        if isinstance(layer, keras.Model):
            reason = layer_that_tells_passes_apart(layer)
        elif type(layer) in _REPEATABLE or declares_image_weights(layer):
            inner = layer.layer if isinstance(layer, Reparametrized) else layer
            reason = reason_in_activation(inner, layer)
        else:
            reason = f"{named(layer)} is not known to be the same in every pass."
        if reason is not None:
            return reason
    return None
