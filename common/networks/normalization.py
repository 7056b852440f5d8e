"""How a network is normalised: rows found by name, and one network's choice among them.

A normalisation of your own, named `sn_mode=my_normalizations:WN`, is a `Normalization` whose
wrappers take a Keras layer and `scale`, `gamma` and `name`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from common.choices import Choices, Lazy

if TYPE_CHECKING:
    import keras

    from common.configuration.settings import Settings


@dataclass(frozen=True)
class Normalization:
    """One way to normalise a network.

    Attributes:
        conv: `f(layer, scale=..., gamma=..., name=...)` wraps a convolution: a Keras layer that
            takes the same inputs and, if `gamma` is shared, `gamma=` in its call.
        dense: likewise a dense layer.
        deconv: likewise a transposed convolution; None where that is not offered.
        features: `f(name=...)` makes the layer that follows every hidden convolution but the first;
            None for none.
        is_spectral: whether the wrappers also take `u_seed` and the estimate's options
            (`common.layers.SpectralNormalized`).
        scaled_name: what the paper calls it where `scale` is not 1.
    """

    conv: Callable[..., "keras.Layer"]
    dense: Callable[..., "keras.Layer"]
    deconv: Callable[..., "keras.Layer"] | None = None
    features: Callable[..., "keras.Layer"] | None = None
    is_spectral: bool = False
    scaled_name: str | None = None


def _layer(name: str) -> Lazy:
    return Lazy(f"common.layers:{name}")


_UNNORMALIZED: dict[str, Any] = dict.fromkeys(("conv", "dense", "deconv"), _layer("Unnormalized"))
_SPECTRAL: dict[str, Any] = {
    "conv": _layer("SpectralNormConv2D"),
    "dense": _layer("SpectralNormDense"),
    "deconv": _layer("SpectralNormConv2DTranspose"),
}

NORMALIZATIONS = Choices(
    "sn_mode",
    Normalization,
    {
        "none": Normalization(**_UNNORMALIZED),
        "SN": Normalization(**_SPECTRAL, is_spectral=True, scaled_name="SSN"),
        "BSN": Normalization(
            _layer("BidirectionalScaledSN"),
            _layer("SpectralNormDense"),  # the last dense layer is always SN (FIDELITY section 1)
            is_spectral=True,
            scaled_name="BSSN",
        ),
        # The norm of the convolution itself, at the size of its real input.
        "CSN": Normalization(
            _layer("OperatorNormConv2D"), _layer("SpectralNormDense"), is_spectral=True
        ),
        "BN": Normalization(**_UNNORMALIZED, features=_layer("BatchNorm")),
        "LN": Normalization(**_UNNORMALIZED, features=_layer("LayerNorm")),
    },
)


def _as_it_is(layer: "keras.Layer", **options: Any) -> "keras.Layer":
    del options
    return layer


GENERATOR_NORMALIZATIONS = Choices(
    "g_sn_mode",
    Normalization,
    {
        "none": Normalization(_as_it_is, _as_it_is, _as_it_is),
        "SN": NORMALIZATIONS["SN"],
    },
)


@dataclass(frozen=True)
class WeightNormalization:
    """How one network's weights are normalised.

    Attributes:
        row: the `Normalization`.
        scale: constant factor on every normalised weight; 1 but for SSN and BSSN.
        gamma: "none", "shared" (one trainable scalar for all layers) or "per_layer".
        estimate: options of the spectral norm's estimate, see `common.layers.SpectralNormalized`.
    """

    row: Normalization
    scale: float = 1.0
    gamma: str = "none"
    estimate: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_discriminator(cls, settings: "Settings") -> "WeightNormalization":
        """What the settings say of the discriminator."""
        row = NORMALIZATIONS[settings.sn_mode]
        return cls(row, settings.scale, settings.gamma, _estimate(settings))

    @classmethod
    def of_generator(cls, settings: "Settings") -> "WeightNormalization":
        """What the settings say of the generator."""
        return cls(GENERATOR_NORMALIZATIONS[settings.g_sn_mode], estimate=_estimate(settings))

    @property
    def changes_weights(self) -> bool:
        """Whether a network with it is another than one that no one normalises."""
        plain = self.row in (NORMALIZATIONS["none"], GENERATOR_NORMALIZATIONS["none"])
        return not plain or self.scale != 1.0 or self.gamma != "none"


def _estimate(settings: "Settings") -> dict[str, Any]:
    return {
        "iterations": settings.sn_iterations,
        "gradient": settings.sn_gradient,
        "advance": settings.sn_advance,
        "epsilon": settings.sn_epsilon,
    }


def method_name(settings: "Settings") -> str:
    """The paper's name of the discriminator's normalisation, such as SN, SSN, BSN or BSSN."""
    scaled = NORMALIZATIONS[settings.sn_mode].scaled_name
    return scaled if scaled and settings.scale != 1.0 else settings.sn_mode
