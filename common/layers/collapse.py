"""Turns a normalised network into one of plain layers, for inference or export."""

from typing import Any

import keras
import tensorflow as tf

from common.keras_private import is_functional, producer
from common.layers.reparametrized import Gamma, Reparametrized


def collapse(model: keras.Model) -> keras.Model:
    """The same network with plain layers, e.g. `Conv2D`, that carry the normalised weights.

    Nothing is shared with `model`: training either one leaves the other as it is.

    Args:
        model: a built functional or sequential Keras model.

    Returns:
        A new model of the same evaluation-mode outputs, without `Reparametrized` or `Gamma` layers.

    Raises:
        ValueError: `model` is a subclassed model, whose graph Keras cannot see, or is not built.
    """
    if not (isinstance(model, keras.Sequential) or is_functional(model)):
        raise ValueError(
            "collapse() takes a functional or sequential model, whose layers Keras can replace. "
            f"Received: {type(model).__name__}"
        )
    if not model.built:
        raise ValueError(f"{model.name} has no weights yet: call or build it before collapse().")
    collapser = _Collapser()
    functional = not isinstance(model, keras.Sequential)
    plain = keras.models.clone_model(
        model,
        clone_function=collapser.clone,
        **({"call_function": collapser.call, "recursive": True} if functional else {}),
    )
    if not plain.built:
        plain.build(model.input_shape)
    collapser.copy_weights()
    return plain


class _Collapser:
    """The two callbacks of `clone_model`, and what they remember for copying the weights."""

    def __init__(self) -> None:
        self._source_of: dict[keras.Layer, keras.Layer] = {}  # clone -> source layer
        self._gamma_of: dict[
            keras.Layer, Gamma
        ] = {}  # clone of a normalised layer -> Gamma layer of the source model

    def clone(self, layer: keras.Layer) -> keras.Layer:
        if isinstance(layer, Reparametrized):
            inner = layer.layer
            copy = inner.__class__.from_config({**inner.get_config(), "name": layer.name})
        else:
            copy = layer.__class__.from_config(layer.get_config())
        self._source_of[copy] = layer
        return copy

    def call(self, layer: keras.Layer, *args: Any, **kwargs: Any) -> tf.Tensor:
        if isinstance(self._source_of.get(layer), Reparametrized):
            gamma = kwargs.pop("gamma", None)
            kwargs.pop("training", None)
            if gamma is not None:
                self._gamma_of[layer] = self._source_of[producer(gamma)]
        return layer(*args, **kwargs)

    def copy_weights(self) -> None:
        for clone, source in self._source_of.items():
            if isinstance(source, Reparametrized):
                gamma = self._gamma_of.get(clone)
                weights = source.normalized_weights(None if gamma is None else gamma.gamma)
                clone.set_weights([weight for weight in weights if weight is not None])
            elif isinstance(source, keras.Layer) and not isinstance(source, Gamma):
                clone.set_weights(source.get_weights())
