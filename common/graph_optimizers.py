"""Which of TensorFlow's graph optimisers run, for the whole process: training bears not all.

As of TF 2.21,

- the dependency optimiser drops the control edge between a few reads of a variable and its update
  that follows: now and then a gradient penalty would see a bias after its update;
- the arithmetic optimiser joins sums into one `AddN`, which begins with whichever of its inputs no
  other op needs any more at that moment: the last digits would depend on the machine's load;
- the remapper fuses layers for inference, and fails with an error on some training graphs.
"""

import contextlib
from collections.abc import Iterator

import tensorflow as tf

_HARMFUL = ("dependency_optimization", "arithmetic_optimization", "remapping")


def restrain() -> None:
    """Switches off what harms training; to be called before the first function of a network runs.

    An optimiser applies to a function when that is first run, and changes its last digits.
    """
    tf.config.optimizer.set_experimental_options(dict.fromkeys(_HARMFUL, False))


@contextlib.contextmanager
def unrestrained() -> Iterator[None]:
    """Lets all of them run on what is called within, each time it is: a network that only infers.

    On a CPU the Inception network gains a seventh by the remapper's fusing convolution, bias and
    ReLU. Its numbers so do not depend on whether the process trains.
    """
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options(dict.fromkeys(_HARMFUL, True))
    try:
        yield
    finally:
        options = {name: before.get(name, True) for name in _HARMFUL}
        tf.config.optimizer.set_experimental_options(options)
