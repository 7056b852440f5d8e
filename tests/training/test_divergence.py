"""The sums that tell where values ceased to be finite, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.layers import SpectralNormDense
from common.training.divergence import (
    spectral_norms,
    sums_of_squares,
    where_it_began,
)
from tests.training.small import VARIANTS, small_settings, small_step

LAYERS = ("first", "middle", "last")
D, G = "discriminator", "generator"


def diagnosis(changed=(), value=np.nan):
    """Of two networks of three layers, the changed places of the given value."""
    groups = [(k, n) for k in ("weights", "gradients") for n in (G, D)]
    tags = {}
    for kind, network in [*groups, ("updated weights", D)]:
        layers = [keras.layers.Dense(1, use_bias=False, name=name) for name in LAYERS]
        model = keras.Sequential([keras.Input((1,)), *layers])
        tensors = [
            tf.fill((1, 1), value if (kind, network, name) in changed else 1.0) for name in LAYERS
        ]
        tags |= sums_of_squares(kind, network, model, tensors)
    layers = [SpectralNormDense(keras.layers.Dense(1), name=name) for name in LAYERS]
    model = keras.Sequential([keras.Input((1,)), *layers])
    for layer in layers:
        if ("spectral norm", D, layer.name) in changed:
            layer.layer.kernel.assign([[value]])
    tags |= spectral_norms({layer.name: layer.sigmas() for layer in layers})
    return {tag: float(value) for tag, value in tags.items()}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("network", [G, D])
def test_each_layer_has_the_sum_of_its_variables_squares(name, network):
    variant = VARIANTS[name]
    model = getattr(small_step(small_settings(variant), 3), network)
    tensors = [variable.value for variable in model.trainable_variables]
    found = sums_of_squares("weights", network, model, tensors)
    expected = [
        sum(np.square(np.asarray(variable, np.float64)).sum() for variable in variables)
        for layer in model.layers
        if (variables := layer.trainable_variables)
    ]
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-5)
    assert list(found) == [
        f"weights/{network}/{x.name}" for x in model.layers if x.trainable_variables
    ]


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ([("gradients", D, "first"), ("gradients", D, "middle")], f"the gradients of {D} middle"),
        (
            [("gradients", G, name) for name in LAYERS],
            f"the forward pass or the loss: the gradients of {G} last are not finite",
        ),
        ([("weights", D, "last"), ("gradients", D, "first")], f"the weights of {D} last"),
        ([("weights", D, "last"), ("weights", G, "first")], f"the weights of {G} first"),
        ([("weights", D, n) for n in LAYERS[:2]], f"the weights of {D} first, middle"),
        (
            [("spectral norm", D, "middle"), *(("gradients", D, name) for name in LAYERS)],
            f"the spectral norm of {D} middle",
        ),
        (
            [("updated weights", D, "middle"), *(("gradients", G, name) for name in LAYERS)],
            f"the updated weights of {D} middle",
        ),
        ([("gradients", G, "middle"), ("gradients", D, "first")], f"the gradients of {D} first"),
    ],
)
def test_the_place(changed, place):
    for value in (np.nan, np.inf):
        assert where_it_began([diagnosis(changed, value)]) == place


def test_finite_values_have_no_place():
    assert where_it_began([diagnosis(), diagnosis()]) is None


def test_a_spectral_norm_of_zero_is_a_place():
    zero = diagnosis([("spectral norm", D, "middle")], 0.0)
    assert where_it_began([zero]) == f"the spectral norm of {D} middle"


def test_the_first_step_concerned_counts():
    first, then = diagnosis([("gradients", D, "middle")]), diagnosis([("weights", D, "last")])
    assert where_it_began([diagnosis(), first, then]) == f"the gradients of {D} middle"
    spoilt = diagnosis([("weights", G, "first")])
    assert where_it_began([first, then | spoilt]) == f"the weights of {G} first"
