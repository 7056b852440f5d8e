"""What a variant is: a few declared choices, from which the one engine does the rest."""

from dataclasses import dataclass
from typing import Literal

GammaMode = Literal["none", "shared", "per_layer"]


@dataclass(frozen=True)
class Variant:
    """The choices in which the paper's experiments differ.

    Attributes:
        name: the variant's folder, e.g. "no_gamma_cnn".
        network: "cnn" or "resnet" (`common.networks`).
        loss: "hinge" or "wgan_gp" (`common.training.losses`).
        gamma: whether trainable scalars multiply the discriminator's weights and biases: "none",
            "shared" (one for all layers) or "per_layer".
        redraw_latents: whether the generator's step draws new latents, in a batch size of its own,
            or takes those of the last discriminator step.
        batch_norm_in_d_steps: whether the generator's moving averages advance in discriminator
            steps too, or in generator steps only.
        summary_after_update: whether the discriminator's summaries are measured after the last
            update of the iteration, or before it.
        memory_summaries: whether memory use is logged at every iteration.
    """

    name: str
    network: Literal["cnn", "resnet"]
    loss: Literal["hinge", "wgan_gp"]
    gamma: GammaMode = "none"
    redraw_latents: bool = False
    batch_norm_in_d_steps: bool = True
    summary_after_update: bool = False
    memory_summaries: bool = False
