"""Adam in its two forms against golden numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.training.adam import Adam
from tests.golden_cases import golden_case


@pytest.mark.parametrize(("form", "recorded"), [("keras", "chainer"), ("pytorch", "pytorch")])
@pytest.mark.parametrize("name", ["adam_A", "adam_B"])
@pytest.mark.parametrize("in_graph", [False, True])
def test_golden_steps(float64, name, form, recorded, in_graph):
    del float64
    inputs, outputs = golden_case(name)
    variable = keras.Variable(inputs["start"], dtype="float64")
    optimizer = Adam(inputs["lr"], inputs["beta1"], inputs["beta2"], inputs["epsilon"], form=form)
    optimizer.build([variable])
    apply = tf.function(lambda gradient: optimizer.apply([gradient], [variable]))
    if not in_graph:
        apply = apply.python_function
    for gradient, expected in zip(inputs["gradients"], outputs[recorded], strict=True):
        apply(tf.constant(gradient))
        np.testing.assert_allclose(variable, expected, rtol=1e-9, atol=1e-13)


def test_the_golden_forms_differ_by_more_than_the_tolerance():
    _, outputs = golden_case("adam_B")
    difference = np.abs(outputs["pytorch"] - outputs["chainer"])
    assert (difference > 1e-8 * np.abs(outputs["pytorch"])).any()


def test_config_round_trip_and_wrong_arguments():
    optimizer = Adam.from_config(Adam(0.1, 0.5, 0.9, 1e-6, form="pytorch").get_config())
    assert (optimizer.form, optimizer.epsilon, optimizer.beta_2) == ("pytorch", 1e-6, 0.9)
    assert Adam(0.1, 0.5, 0.9).form == "keras"
    with pytest.raises(ValueError, match="form"):
        Adam(0.1, 0.5, 0.9, form="tf")
    with pytest.raises(ValueError, match="amsgrad"):
        Adam(0.1, 0.5, 0.9, amsgrad=True)
