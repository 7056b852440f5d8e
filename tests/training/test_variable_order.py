"""A step's reads of a variable come before its update, in the graph that TensorFlow makes of it."""

import pytest
from tensorflow.core.framework.node_def_pb2 import NodeDef

from tests.training.small import VARIANTS
from tests.training.variable_order import optimized_graphs, reads_and_updates, unordered


@pytest.mark.parametrize("name", ["no_gamma_cnn", "diff_gamma_cnn"])
def test_reads_and_updates_are_ordered(name):
    whole = max(optimized_graphs(VARIANTS[name]), key=len)
    assert unordered(whole) == []
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
