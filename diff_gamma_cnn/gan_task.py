"""What this variant is: the CNN, WGAN-GP, SN with one gamma per layer."""

from common.variant import Variant

VARIANT = Variant("diff_gamma_cnn", network="cnn", loss="wgan_gp", gamma="per_layer")
