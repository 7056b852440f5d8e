"""Which networks a fused discriminator step may train: those that treat each image by itself.

A layer's class declares so with `takes_image_weights = True`, in its own body: its output for an
image depends on that image alone, and the gradients of its variables, if any, are weighted image by
image through `common.layers.image_weights`. It keeps no state that passes change, but for the `u`
of the normalising wrappers. A class derived from it declares it anew, since it may
do anything.
"""

from collections.abc import Callable, Iterable

import keras

from common.keras_private import GraphCall, graph_calls, is_plain_model
from common.layers.convolution import MeanPoolingConv2D, ResidualConv2D, UpsamplingConv2D
from common.layers.linear_maps import LINEAR_LAYERS
from common.layers.reparametrized import Gamma, Reparametrized

# Keras' own without variables and randomness; of exactly these classes.
IMAGE_WISE = frozenset(
    {
        keras.layers.Activation,
        keras.layers.Add,
        keras.layers.Average,
        keras.layers.AveragePooling2D,
        keras.layers.Concatenate,
        keras.layers.Cropping2D,
        keras.layers.ELU,
        keras.layers.Flatten,
        keras.layers.GlobalAveragePooling2D,
        keras.layers.GlobalMaxPooling2D,
        keras.layers.Identity,
        keras.layers.InputLayer,
        keras.layers.LeakyReLU,
        keras.layers.MaxPooling2D,
        keras.layers.Maximum,
        keras.layers.Minimum,
        keras.layers.Multiply,
        keras.layers.Permute,
        keras.layers.ReLU,
        keras.layers.RepeatVector,
        keras.layers.Rescaling,
        keras.layers.Reshape,
        keras.layers.Subtract,
        keras.layers.UpSampling2D,
        keras.layers.ZeroPadding2D,
    }
)
WRAPPED = frozenset({*LINEAR_LAYERS, ResidualConv2D, UpsamplingConv2D, MeanPoolingConv2D})
_ACTIVATIONS = frozenset(
    {
        keras.activations.celu,
        keras.activations.elu,
        keras.activations.exponential,
        keras.activations.gelu,
        keras.activations.hard_sigmoid,
        keras.activations.hard_silu,
        keras.activations.leaky_relu,
        keras.activations.linear,
        keras.activations.mish,
        keras.activations.relu,
        keras.activations.relu6,
        keras.activations.selu,
        keras.activations.sigmoid,
        keras.activations.silu,
        keras.activations.softplus,
        keras.activations.softsign,
        keras.activations.tanh,
    }
)


def layer_that_couples_images(model: keras.Model) -> str | None:
    """Why the fused step would not be provably right for a discriminator.

    Provably right is a functional or sequential model of one score for each image, all of whose
    calls are of layers that declare `takes_image_weights`, or of Keras' own that have no variables,
    no randomness and no user's function, and are known to treat each image alone.

    Args:
        model: a built Keras model.

    Returns:
        A sentence that names the first layer that is to blame, or None.
    """
    reason = _reason_in_graph(model)
    if reason is None and _output_shape(model)[1:] != (1,):
        reason = f"{model.name} does not give one score for each image."
    return reason


def _output_shape(model: keras.Model) -> tuple[int | None, ...]:
    outputs = model.outputs
    return tuple(outputs[0].shape) if len(outputs) == 1 else ()


def _reason_in_graph(model: keras.Layer) -> str | None:
    if not is_plain_model(model):
        return f"{named(model)} is not a functional or sequential model, whose graph can be seen."
    if not model.built or not model.outputs:
        return f"{named(model)} is not built."
    gammas: set[int] = set()
    for call in graph_calls(model):
        reason = _reason_in_call(call, gammas)
        if reason is not None:
            return reason
        if isinstance(call.operation, Gamma):
            gammas.update(id(tensor) for tensor in call.outputs)
    return None


def _reason_in_call(call: GraphCall, gammas: set[int]) -> str | None:
    """What speaks against one call, `gammas` being the ids of what `Gamma` layers gave before."""
    return _reason_of_gamma(call, gammas) or _reason_of_layer(call)


def _reason_of_gamma(call: GraphCall, gammas: set[int]) -> str | None:
    gamma = _gamma_argument(call)
    if gamma is not None and id(gamma) not in gammas:
        return f"{named(call.operation)} has a gamma that is not a Gamma layer's."
    if any(id(tensor) in gammas for tensor in call.inputs if tensor is not gamma):
        return f"{named(call.operation)} uses a shared gamma, whose gradient only wrappers weight."
    return None


def _reason_of_layer(call: GraphCall) -> str | None:
    layer = call.operation
    if isinstance(layer, keras.Model):
        return _reason_in_graph(layer)
    if declares_image_weights(layer):
        return _reason_in_wrapped(layer) if isinstance(layer, Reparametrized) else None
    if type(layer) not in IMAGE_WISE:
        return _reason_of_other(layer)
    if isinstance(layer, keras.layers.Concatenate) and _is_batch_axis(layer.axis, call.inputs):
        return f"{named(layer)} concatenates along the batch."
    return reason_in_activation(layer)


def _gamma_argument(call: GraphCall) -> keras.KerasTensor | None:
    if not isinstance(call.operation, Reparametrized):
        return None
    return call.kwargs.get("gamma", call.args[1] if len(call.args) > 1 else None)


def declares_image_weights(layer: keras.Operation) -> bool:
    """Whether a layer's own class says that it takes image weights."""
    return vars(type(layer)).get("takes_image_weights") is True


def _reason_in_wrapped(wrapper: Reparametrized) -> str | None:
    if type(wrapper.layer) not in WRAPPED:
        return (
            f"{wrapper.name} wraps a {type(wrapper.layer).__name__}, which is not known to treat "
            "each image alone."
        )
    return reason_in_activation(wrapper.layer, wrapper)


def _reason_of_other(layer: keras.Operation) -> str:
    if isinstance(layer, keras.Layer) and layer.weights:
        return (
            f"{named(layer)} has variables, and does not declare that their gradients take image "
            "weights (takes_image_weights = True in the class)."
        )
    return f"{named(layer)} is not known to treat each image alone."


def reason_in_activation(layer: keras.Layer, shown: keras.Layer | None = None) -> str | None:
    """What speaks against a layer's activation; `shown` is the layer to name, if another."""
    activation: Callable[..., object] | None = getattr(layer, "activation", None)
    if activation is None or any(activation is known for known in _ACTIVATIONS):
        return None
    return f"{named(shown or layer)} has an activation that is not known to treat each image alone."


def _is_batch_axis(axis: int, inputs: Iterable[keras.KerasTensor]) -> bool:
    return any(axis in (0, -len(tensor.shape)) for tensor in inputs)


def named(layer: keras.Operation) -> str:
    """A layer as messages name it."""
    return f"{layer.name} ({type(layer).__name__})"
