"""The graph that TensorFlow makes of the training loop leaves nothing to chance."""

import pytest
from tensorflow.core.framework.node_def_pb2 import NodeDef

from tests.training.graph_order import (
    fusions_by_chance,
    optimized_graphs,
    reads_and_updates,
    sums_in_any_order,
    unordered,
)
from tests.training.small import VARIANTS


@pytest.mark.parametrize(
    "name",
    [
        "no_gamma_cnn",
        "diff_gamma_cnn",
        pytest.param("no_gamma_resnet", marks=pytest.mark.slow),
    ],
)
def test_nothing_is_left_to_chance(name):
    whole = max(optimized_graphs(VARIANTS[name]), key=len)
    assert unordered(whole) == []
    assert sums_in_any_order(whole) == []
    assert fusions_by_chance(whole) == []
    both = [found for found in reads_and_updates(whole).values() if all(found)]
    assert len(both) > 50


@pytest.mark.parametrize(
    ("control", "found"),
    [
        ({}, [("w", "read", "update")]),
        ({"update": "^read"}, []),
        ({"read": "^between", "between": "^update"}, []),
    ],
)
def test_what_has_no_order_is_found(control, found):
    inputs = {
        "w": ("VarHandleOp", []),
        "passed": ("Identity", ["w"]),
        "between": ("NoOp", []),
        "read": ("ReadVariableOp", ["passed:0"]),
        "update": ("AssignVariableOp", ["w", "value"]),
    }
    nodes = [
        NodeDef(name=name, op=op, input=[*data, *([control[name]] if name in control else [])])
        for name, (op, data) in inputs.items()
    ]
    assert unordered(nodes) == found


@pytest.mark.parametrize(
    ("users", "found"), [(["total"], []), (["total", "other"], ["total"])], ids=["one", "two"]
)
def test_sums_of_what_others_need_are_found(users, found):
    terms = [NodeDef(name=name, op="Mul", input=["x", "x"]) for name in "abc"]
    shaped = NodeDef(name="shaped", op="Reshape", input=["c", "shape"])
    inputs = {"total": ["a", "b:0", "shaped"], "other": ["c"]}
    sums = [NodeDef(name=n, op="AddN" if n == "total" else "Neg", input=inputs[n]) for n in users]
    assert sums_in_any_order([*terms, shaped, *sums]) == found


@pytest.mark.parametrize(
    ("biases", "kernels", "found"),
    [(1, 1, []), (2, 0, []), (2, 1, ["by_sum"]), (1, 2, ["by_sum"])],
)
def test_ambiguous_fusions_are_found(biases, kernels, found):
    nodes = [NodeDef(op="BiasAddGrad", input=["by_sum"])] * biases
    nodes += [NodeDef(op="Conv2DBackpropFilter", input=["images", "s", "by_sum:1"])] * kernels
    assert fusions_by_chance(nodes) == found
