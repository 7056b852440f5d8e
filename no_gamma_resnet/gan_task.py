"""What this variant is: the ResNet, hinge loss, SN / SSN / BSN / BSSN without gammas."""

from common.variant import Variant

VARIANT = Variant(
    "no_gamma_resnet",
    network="resnet",
    loss="hinge",
    gamma="none",
    dataset="imagenet",
    mg=4,
    redraw_latents=True,
    batch_norm_in_d_steps=False,
    summary_after_update=True,
    memory_summaries=True,
)
