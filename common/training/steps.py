"""Which step a job trains by."""

from typing import NamedTuple

from common.configuration.settings import Settings
from common.errors import UserError
from common.networks.build import Networks
from common.training.fused_step import FusedStep, why_not_fused
from common.training.plain_step import PlainStep


class ChosenStep(NamedTuple):
    """A step and the reason for it.

    Attributes:
        step: the `PlainStep` or `FusedStep`.
        why: a sentence's rest, such as "the configuration says so".
    """

    step: PlainStep
    why: str


def choose_step(settings: Settings, networks: Networks) -> ChosenStep:
    """The fused step where it computes what the plain one does, unless the configuration decides.

    Args:
        settings: the job's `Settings`.
        networks: its `Networks`.

    Raises:
        UserError: the configuration asks for the fused step, and it would be wrong; or a network
            has losses of its own.
    """
    for model in (networks.generator, networks.discriminator):
        if model.losses:
            raise UserError(
                f"{model.name} adds losses of its own (a regulariser, or add_loss), which training "
                "would ignore: leave them out, and take a penalty instead."
            )
    if settings.step == "plain":
        return ChosenStep(PlainStep(settings, networks), "the configuration says so")
    reason = why_not_fused(settings, networks)
    if reason is None:
        why = "every layer of the discriminator takes image weights, and none couples images"
        return ChosenStep(FusedStep(settings, networks), why)
    if settings.step == "fused":
        raise UserError(
            f"step=fused would compute wrong gradients: {reason.rstrip('.')}. Say step=plain, or "
            "step=auto."
        )
    return ChosenStep(PlainStep(settings, networks), reason)
