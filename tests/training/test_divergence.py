"""The sums that tell where values ceased to be finite, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.training.divergence import is_sum, sums_of_squares, where_it_began
from common.training.run import build_step
from tests.training.small import VARIANTS, small_settings

LAYERS = ("first", "middle", "last")


def sums(changed=(), value=np.nan):
    """Of two networks of three layers, the changed ones of the given value."""
    groups = [(k, n) for k in ("weights", "gradients") for n in ("generator", "discriminator")]
    tags = {}
    for kind, network in groups:
        layers = [keras.layers.Dense(1, use_bias=False, name=name) for name in LAYERS]
        model = keras.Sequential([keras.Input((1,)), *layers])
        tensors = [
            tf.fill((1, 1), value if (kind, network, name) in changed else 1.0) for name in LAYERS
        ]
        tags |= sums_of_squares(kind, network, model, tensors)
    return {tag: float(value) for tag, value in tags.items()}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_each_layer_has_the_sum_of_its_variables_squares(name, network):
    variant = VARIANTS[name]
    model = getattr(build_step(variant, small_settings(variant), root_seed=3), network)
    tensors = [variable.value for variable in model.trainable_variables]
    found = sums_of_squares("weights", network, model, tensors)
    expected = [
        sum(np.square(np.asarray(variable, np.float64)).sum() for variable in variables)
        for layer in model.layers
        if (variables := layer.trainable_variables)
    ]
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-5)
    assert all(map(is_sum, found))
    assert not is_sum("loss/d")


def test_the_place_is_the_last_of_the_layers_concerned():
    assert where_it_began([sums(), sums()]) is None
    d, g = "discriminator", "generator"
    for changed, place in [
        ([("gradients", d, "first"), ("gradients", d, "middle")], f"gradients of {d} middle"),
        ([("gradients", g, name) for name in LAYERS], f"gradients of {g} last, its last layer: "
                                                      "perhaps in the loss"),
        ([("weights", d, "last"), ("gradients", d, "first")], f"weights of {d} last"),
        ([("weights", d, "last"), ("weights", g, "first")], f"weights of {g} first"),
        ([("gradients", g, "last"), ("gradients", d, "first")], f"gradients of {d} first"),
    ]:  # fmt: skip
        for value in (np.nan, np.inf, 1e30):  # the last's square overflows float32
            assert where_it_began([sums(changed, value)]) == f"the {place}"


def test_the_first_step_concerned_counts():
    d, g = "discriminator", "generator"
    first, then = sums([("gradients", d, "middle")]), sums([("weights", d, "last")])
    assert where_it_began([sums(), first, then]) == f"the gradients of {d} middle"
    spoilt = sums([("weights", g, "first")])
    assert where_it_began([first, then | spoilt]) == f"the weights of {g} first"
