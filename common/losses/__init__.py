"""What the networks minimise: adversarial losses and penalties, each a row found by name.

A loss of your own, in a file beside your configuration and named `loss=my_losses:NS`:

    import tensorflow as tf
    from common.losses import Loss

    NS = Loss(
        real=lambda scores: tf.reduce_mean(tf.nn.softplus(-scores)),
        fake=lambda scores: tf.reduce_mean(tf.nn.softplus(scores)),
        generator=lambda scores: tf.reduce_mean(tf.nn.softplus(-scores)),
    )
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from common.choices import Choices, Lazy

Scores = Any  # a tensor [n, 1] in the variables' precision
Scalar = Any  # a tensor of shape ()


@dataclass(frozen=True)
class Loss:
    """An adversarial loss: functions of the discriminator's scores `[n, 1]` to scalars.

    Attributes:
        real: what the discriminator minimises on real images.
        fake: what it minimises on generated images; its loss is the sum of both.
        generator: what the generator minimises, of the scores of its images.
        penalty: the penalty that belongs to the loss, unless the configuration names another.
    """

    real: Callable[[Scores], Scalar]
    fake: Callable[[Scores], Scalar]
    generator: Callable[[Scores], Scalar]
    penalty: str = "none"


@dataclass(frozen=True)
class PenaltyInputs:
    """What a penalty is computed from, in one discriminator step.

    Attributes:
        score: `f(images [n, h, w, c], labels) -> scores [n, 1]`, the discriminator in training mode
            and in the variables' precision, recorded by gradient tapes.
        discriminator: the Keras model itself, for penalties on its weights.
        real, fake: images `[n, h, w, c]` in [-1, 1].
        mix: `[n, 1, 1, 1]`, uniform in [0, 1).
        real_labels, fake_labels: `[n]`, or None where the networks take no labels.
    """

    score: Callable[[Any, Any], Scores]
    discriminator: Any
    real: Any
    fake: Any
    mix: Any
    real_labels: Any = None
    fake_labels: Any = None


@dataclass(frozen=True)
class Penalty:
    """A term that `d_gp_coe` times is added to the discriminator's loss.

    Attributes:
        function: `f(PenaltyInputs) -> scalar`, differentiable with respect to the discriminator's
            variables; None for no penalty.
    """

    function: Callable[[PenaltyInputs], Scalar] | None


def _score(name: str) -> Lazy:
    return Lazy(f"common.losses.adversarial:{name}")


def _penalty(name: str) -> Penalty:
    return Penalty(Lazy(f"common.losses.penalties:{name}"))


LOSSES = Choices(
    "loss",
    Loss,
    {
        "hinge": Loss(_score("hinge_real"), _score("hinge_fake"), _score("negative_mean")),
        "wasserstein": Loss(_score("negative_mean"), _score("mean"), _score("negative_mean")),
        "wgan_gp": Loss(
            _score("negative_mean"), _score("mean"), _score("negative_mean"), "wgan_gp"
        ),
        "non_saturating": Loss(
            _score("softplus_real"), _score("softplus_fake"), _score("softplus_real")
        ),
        "least_squares": Loss(
            _score("squares_real"), _score("squares_fake"), _score("squares_real")
        ),
    },
)

PENALTIES = Choices(
    "penalty",
    Penalty,
    {
        "none": Penalty(None),
        "wgan_gp": _penalty("two_sided"),
        "one_sided": _penalty("one_sided"),
        "r1": _penalty("r1"),
    },
)
