"""Ways in which a training run ends before its last iteration."""


class InterruptedRunError(Exception):
    """The run was asked to stop; it wrote a checkpoint, from which the next start goes on."""


class DivergedError(Exception):
    """A loss or another logged value became NaN or infinite. Divergence is a result, too: what
    was measured up to then stays."""


class WorkerLostError(Exception):
    """Another host of a training on several was lost; the run goes on once all are started anew."""
