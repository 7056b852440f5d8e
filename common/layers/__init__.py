"""Keras layers: spectral, batch and layer normalisation, and joined convolutions."""

from common.layers.batch_norm import BatchNorm, moving_average_advances
from common.layers.collapse import collapse
from common.layers.convolution import MeanPoolingConv2D, ResidualConv2D, UpsamplingConv2D
from common.layers.convolution_norm import OperatorNormConv2D
from common.layers.image_wise import layer_that_couples_images
from common.layers.layer_norm import LayerNorm
from common.layers.leaky_relu import LeakyReLU
from common.layers.reparametrized import Gamma, Reparametrized, Unnormalized
from common.layers.repeatable import layer_that_tells_passes_apart
from common.layers.spectral_norm import (
    BidirectionalScaledSN,
    SpectralNormalized,
    SpectralNormConv2D,
    SpectralNormConv2DTranspose,
    SpectralNormDense,
    SpectralNormEmbedding,
    spectral_layers,
)
from common.layers.sum_pooling import SumPooling

__all__ = [
    "BatchNorm",
    "BidirectionalScaledSN",
    "Gamma",
    "LayerNorm",
    "LeakyReLU",
    "MeanPoolingConv2D",
    "OperatorNormConv2D",
    "Reparametrized",
    "ResidualConv2D",
    "SpectralNormConv2D",
    "SpectralNormConv2DTranspose",
    "SpectralNormDense",
    "SpectralNormEmbedding",
    "SpectralNormalized",
    "SumPooling",
    "Unnormalized",
    "UpsamplingConv2D",
    "collapse",
    "layer_that_couples_images",
    "layer_that_tells_passes_apart",
    "moving_average_advances",
    "spectral_layers",
]
