"""What this variant is: the CNN, WGAN-GP, SN with one gamma shared by all layers."""

from common.variant import Variant

VARIANT = Variant("same_gamma_cnn", network="cnn", loss="wgan_gp", gamma="shared")
