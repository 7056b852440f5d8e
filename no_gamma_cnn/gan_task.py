"""What this variant is: the CNN, hinge loss, SN / SSN / BSN / BSSN without gammas."""

from common.variant import Variant

VARIANT = Variant("no_gamma_cnn", network="cnn", loss="hinge", gamma="none")
