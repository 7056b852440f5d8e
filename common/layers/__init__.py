"""Keras layers: spectral normalisation (SN, SSN, BSN, BSSN) and TF1's batch normalisation."""

from common.layers.batch_norm import BatchNorm, moving_average_advances
from common.layers.collapse import collapse
from common.layers.convolution import MeanPoolingConv2D, ResidualConv2D, UpsamplingConv2D
from common.layers.leaky_relu import LeakyReLU
from common.layers.spectral_norm import (
    BidirectionalScaledSN,
    Gamma,
    SpectralNormalized,
    SpectralNormConv2D,
    SpectralNormDense,
    power_iteration,
    spectral_layers,
)

__all__ = [
    "BatchNorm",
    "BidirectionalScaledSN",
    "Gamma",
    "LeakyReLU",
    "MeanPoolingConv2D",
    "ResidualConv2D",
    "SpectralNormConv2D",
    "SpectralNormDense",
    "SpectralNormalized",
    "UpsamplingConv2D",
    "collapse",
    "moving_average_advances",
    "power_iteration",
    "spectral_layers",
]
