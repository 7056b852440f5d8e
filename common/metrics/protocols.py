"""How published numbers are made: one declared row for each way (specification, section 6)."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

from common.choices import Choices, Lazy

_FUNCTION = cast(type[Callable[..., Any]], Callable)


@dataclass(frozen=True)
class Resize:
    """A way of resizing images to what a network takes.

    Attributes:
        function: If `in_network`, from float32 `[n, height, width, channels]` and a size in pixels
            to float32 `[n, size, size, channels]`; it is compiled with the network. Otherwise from
            uint8 `[n, height, width, 3]` to uint8 `[n, size, size, 3]`.
        in_network: Whether the network resizes, or the images are resized before it.
    """

    function: Callable[..., Any]
    in_network: bool = True


# By what a network's record says of it.
RESIZES = Choices(
    "resize",
    Resize,
    {
        "TF1 bilinear": Resize(Lazy("common.metrics.feature_network:resize_bilinear_tf1")),
        "bilinear": Resize(Lazy("common.metrics.feature_network:resize_bilinear")),
        "PIL bicubic": Resize(
            Lazy("common.metrics.network_inputs:resize_by_pil"), in_network=False
        ),
    },
)

# What becomes of a generator's values in [-1, 1]: floats as they are, or uint8.
PIXELS: Choices[Callable[..., Any]] = Choices(
    "pixels",
    _FUNCTION,
    {
        "unrounded": Lazy("common.metrics.network_inputs:unrounded"),
        "truncated": Lazy("common.metrics.network_inputs:truncated"),
        "rounded": Lazy("common.pixels:to_uint8"),
    },
)

# Of two `GaussianStatistics`, real and fake.
DISTANCES: Choices[Callable[..., Any]] = Choices(
    "distance",
    _FUNCTION,
    {
        "symmetric": Lazy("common.metrics.frechet:frechet_distance"),
        "sqrtm": Lazy("common.metrics.frechet:frechet_distance_by_sqrtm"),
        "eigenvalues": Lazy("common.metrics.frechet:frechet_distance_by_eigenvalues"),
    },
)


@dataclass(frozen=True)
class Protocol:
    """The choices in which evaluations of the same images differ.

    Attributes:
        pixels: Name in `PIXELS` of what becomes of a generator's values: "unrounded", "truncated"
            (`x * 127.5 + 128` to uint8) or "rounded" to uint8.
        centre: uint8 levels reach the network as `(x - centre) / centre`.
        score_resize: Name in `RESIZES` of how the images of metrics of logits (the Inception
            Score) are resized to what the network takes.
        distance_resize: Likewise those of metrics of features (the FID, the KID and PRDC).
        classes: Number of logits that count in the Inception Score, from the first on.
        with_bias: Whether the last layer's bias is part of them; None for what the file of the
            network gives, see `InceptionNetwork`.
        any_network: Whether it is a protocol for other networks too; otherwise for Inception alone.
        splits: Number of splits of the Inception Score.
        ddof: What is subtracted from it in the standard deviation.
        shuffle_seed: Seed of NumPy's legacy generator that shuffles the Inception Score's images.
        is_samples: Number of samples for metrics of logits; None for all there are.
        fid_samples: Number of samples, the first of those, for metrics of features.
        real_images: Number of real images, drawn at random.
        distance: Name in `DISTANCES`.

    Raises:
        UserError: A name is unknown.
    """

    pixels: str
    centre: float
    score_resize: str
    distance_resize: str
    classes: int
    with_bias: bool | None
    distance: str
    any_network: bool = False
    splits: int = 10
    ddof: int = 0
    shuffle_seed: int | None = None
    is_samples: int | None = None
    fid_samples: int | None = None
    real_images: int | None = None

    def __post_init__(self) -> None:
        """Looks the names up."""
        for choices, names in (
            (PIXELS, [self.pixels]),
            (RESIZES, [self.score_resize, self.distance_resize]),
            (DISTANCES, [self.distance]),
        ):
            for name in names:
                choices[name]

    def at_most(self, what: Literal["is_samples", "fid_samples", "real_images"], count: int) -> int:
        """The number of images used of `count` that there are."""
        wanted = getattr(self, what)
        return count if wanted is None else min(wanted, count)


PROTOCOLS = Choices(
    "protocol",
    Protocol,
    {
        "bsn": Protocol(
            pixels="unrounded",
            centre=127.5,
            score_resize="TF1 bilinear",
            distance_resize="TF1 bilinear",
            classes=1000,
            with_bias=None,
            any_network=True,
            distance="symmetric",
            is_samples=50_000,
            fid_samples=10_000,
            real_images=5_000,
        ),
        "mmgen": Protocol(
            pixels="truncated",
            centre=128,
            score_resize="PIL bicubic",
            distance_resize="TF1 bilinear",
            classes=1008,
            with_bias=False,
            distance="sqrtm",
        ),
        "studiogan": Protocol(
            pixels="rounded",
            centre=127.5,
            score_resize="bilinear",
            distance_resize="bilinear",
            classes=1008,
            with_bias=True,
            splits=1,
            ddof=1,
            distance="sqrtm",
        ),
        "torch_fidelity": Protocol(
            pixels="rounded",
            centre=128,
            score_resize="TF1 bilinear",
            distance_resize="TF1 bilinear",
            classes=1008,
            with_bias=False,
            shuffle_seed=2020,
            distance="eigenvalues",
        ),
    },
)
DEFAULT_PROTOCOL = "bsn"


def deviations(protocol: Protocol) -> dict[str, Any]:
    """The facts in which a protocol is not `bsn`, the numbers of images aside: JSON-able."""
    usual = dataclasses.asdict(PROTOCOLS[DEFAULT_PROTOCOL])
    counts = ("is_samples", "fid_samples", "real_images", "splits")
    facts = dataclasses.asdict(protocol).items()
    return {name: value for name, value in facts if name not in counts and value != usual[name]}
