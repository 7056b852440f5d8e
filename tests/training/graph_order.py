"""Whether the optimised graph of the training loop leaves anything to chance.

`python -m tests.training.graph_order VARIANT DEVICES` prints each read that nothing orders before
or after an update of the same variable, each sum that may be made in several orders, and each
gradient whose sum over positions may be made in several ways; it fails if there is one.
"""

import sys
from collections import Counter, defaultdict

from tensorflow.python.eager import context

from common.training.batches import BatchPipeline
from common.training.devices import open_strategy
from common.training.iterations import CompiledIterations
from tests.training.small import VARIANTS, noise_source, small_settings, small_step

UPDATES = {"ResourceApplyAdam": 3, "AssignVariableOp": 1, "AssignAddVariableOp": 1}


def optimized_graphs(variant, devices=1):
    """The graphs, as TensorFlow runs them, of two iterations of a small job."""
    strategy = open_strategy(devices)
    settings = small_settings(variant)
    with strategy.scope():
        step = small_step(settings, 3)
    pipeline = BatchPipeline(noise_source(step.discriminator.input_shape[1]), settings, 5)
    iterations = CompiledIterations(strategy, step, pipeline, settings.n_dis, 0)
    context.context().enable_graph_collection()
    try:
        iterations.run(2)
        collected = context.context().export_run_metadata()
    finally:
        context.context().disable_graph_collection()
    return [list(f.post_optimization_graph.node) for f in collected.function_graphs]


def reads_and_updates(nodes):
    """`{variable: (names of reads, names of updates)}`."""
    graph = _Graph(nodes)
    found = defaultdict(lambda: ([], []))
    for node in nodes:
        if node.op == "ReadVariableOp":
            found[graph.origin(node.input[0])][0].append(node.name)
        for handle in node.input[: UPDATES.get(node.op, 0)]:
            found[graph.origin(handle)][1].append(node.name)
    return dict(found)


def unordered(nodes):
    """`[(variable, read, update), ...]`: what may run in either order within an iteration."""
    graph = _Graph(nodes)
    pairs = []
    for variable, (reads, updates) in reads_and_updates(nodes).items():
        before = {update: graph.ancestors(update) for update in updates}
        after = {read: graph.ancestors(read) for read in reads}
        pairs += [
            (variable, read, update)
            for update in updates
            for read in reads
            if read not in before[update] and update not in after[read]
        ]
    return pairs


def sums_in_any_order(nodes):
    """Names of the sums of three terms or more of which other ops need one, too.

    `AddN` begins with a term that no other op needs any more, which is a matter of time.
    """
    users = Counter(name for n in nodes for name in map(_tensor, n.input))
    graph = _Graph(nodes)
    return [
        n.name
        for n in nodes
        if n.op == "AddN" and len(terms := [i for i in n.input if i[0] != "^"]) > 2
        if any(users[tensor] > 1 for term in terms for tensor in graph.passing(term))
    ]


def fusions_by_chance(nodes):
    """Ops of whose outputs three or more bias and kernel gradients are made, at least one each.

    After these optimisers, TensorFlow's pass for oneDNN makes one op of a bias gradient and a
    kernel gradient that follow the same op, whichever two lie first in memory, and what it makes
    has another order of summation.
    """
    biases = Counter(_node(n.input[0]) for n in nodes if n.op == "BiasAddGrad")
    kernels = Counter(_node(n.input[2]) for n in nodes if n.op == "Conv2DBackpropFilter")
    return sorted(name for name in biases & kernels if biases[name] + kernels[name] > 2)


def _tensor(name):
    """A tensor's name, in full."""
    return name if ":" in name or name[0] == "^" else f"{name}:0"


def _node(tensor):
    """The name of the op that a tensor is an output of."""
    return tensor.split(":")[0]


class _Graph:
    """A graph with loops; the outermost loop's way back is cut, so that one turn is looked at."""

    def __init__(self, nodes):
        self._inputs = {n.name: [i.lstrip("^").split(":")[0] for i in n.input] for n in nodes}
        self._passes_on = {n.name for n in nodes if n.op in ("Identity", "Enter", "Switch")}
        self._same_memory = {n.name for n in nodes if n.op in ("Identity", "Reshape", "Squeeze")}
        depth = min((_depth(n.name) for n in nodes if n.op == "NextIteration"), default=0)
        self._cut = {n.name for n in nodes if n.op == "NextIteration" and _depth(n.name) == depth}

    def origin(self, tensor):
        """The node that made a tensor which others only pass on."""
        name = _node(tensor)
        while name in self._passes_on:
            name = self._inputs[name][0]
        return name

    def passing(self, tensor):
        """A tensor and those that it shares its memory with, back to the op that made it."""
        yield _tensor(tensor)
        while (name := _node(tensor)) in self._same_memory:
            tensor = f"{self._inputs[name][0]}:0"
            yield tensor

    def ancestors(self, name):
        """Names of all nodes that run before one."""
        seen, ahead = set(), [name]
        while ahead:
            inputs = self._inputs.get(ahead.pop(), ())
            new = [i for i in inputs if i not in seen and i not in self._cut]
            seen.update(new)
            ahead += new
        return seen


def _depth(name):
    return name.count("/body/")


def main(name, devices):
    found = []
    for nodes in optimized_graphs(VARIANTS[name], int(devices)):
        by_chance = sums_in_any_order(nodes) + fusions_by_chance(nodes)
        found += unordered(nodes) + [(name,) for name in by_chance]
    for names in found:
        print(*names)
    sys.exit(bool(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
