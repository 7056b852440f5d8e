"""The paper's networks as Keras models, by name."""

from common.networks import cnn, resnet
from common.networks.blocks import Normalization

NETWORKS = {"cnn": cnn, "resnet": resnet}

__all__ = ["NETWORKS", "Normalization"]
