"""Turns a normalised network into one of plain layers, for inference or export."""

import keras

from common.layers.spectral_norm import Gamma, SpectralNormalized


def collapse(model):
    """The same network with plain `Conv2D` and `Dense` layers carrying the normalised weights.

    Nothing is shared with `model`: training either one leaves the other as it is.

    Args:
        model: a built functional or sequential Keras model.

    Returns:
        A new model that computes the same outputs, without `SpectralNormalized` or `Gamma` layers.

    Raises:
        ValueError: `model` is a subclassed model, whose graph Keras cannot see, or is not built.
    """
    if not isinstance(model, (keras.Sequential, keras.src.models.functional.Functional)):
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

    def __init__(self):
        self._source_of = {}  # clone -> source layer
        self._gamma_of = {}  # clone of a normalised layer -> Gamma layer of the source model

    def clone(self, layer):
        if isinstance(layer, SpectralNormalized):
            inner = layer.layer
            copy = inner.__class__.from_config({**inner.get_config(), "name": layer.name})
        else:
            copy = layer.__class__.from_config(layer.get_config())
        self._source_of[copy] = layer
        return copy

    def call(self, layer, *args, **kwargs):
        if isinstance(self._source_of.get(layer), SpectralNormalized):
            gamma = kwargs.pop("gamma", None)
            if gamma is not None:
                self._gamma_of[layer] = self._source_of[gamma._keras_history.operation]
        return layer(*args, **kwargs)

    def copy_weights(self):
        for clone, source in self._source_of.items():
            if isinstance(source, SpectralNormalized):
                gamma = self._gamma_of.get(clone)
                weights = source.normalized_weights(None if gamma is None else gamma.gamma)
                clone.set_weights([weight for weight in weights if weight is not None])
            elif isinstance(source, keras.Layer) and not isinstance(source, Gamma):
                clone.set_weights(source.get_weights())
