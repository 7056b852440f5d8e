"""The networks, each a row found by name.

A network of your own, in a file beside your configuration and named `network=my_networks:mlp`, is a
`Network` whose two functions take a `NetworkSpec` and return Keras models.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from common.choices import Choices, Lazy
from common.networks.normalization import WeightNormalization

if TYPE_CHECKING:
    import keras

    from common.configuration.settings import Settings

ImageShape = tuple[int, int, int]  # height, width, channels


@dataclass(frozen=True)
class NetworkSpec:
    """What a network is built from.

    Attributes:
        settings: the job's `Settings`, of which a network reads the keys that its row names.
        image_shape: (height, width, channels) of the images.
        classes: number of labels for a network that takes them, otherwise None.
        seed: integer that determines the initial values.
    """

    settings: "Settings"
    image_shape: ImageShape
    _normalization: WeightNormalization
    classes: int | None
    seed: int
    _reads: list[str] = field(default_factory=list)

    @property
    def normalization(self) -> WeightNormalization:
        """How this network's weights are normalised."""
        self._reads.append("normalization")
        return self._normalization

    @property
    def ignores_normalization(self) -> bool:
        """Whether the network is to be normalised, and has not asked how."""
        return self._normalization.changes_weights and not self._reads

    @property
    def latent_dim(self) -> int:
        """Length of the latent vector."""
        return self.settings.latent_dim


@dataclass(frozen=True)
class Network:
    """A generator and a discriminator that belong together.

    Whatever is random in their layers comes from the layers' own seed generators (as of Keras'
    dropout), never from Keras' global one: checkpoints hold the former, and runs resume exactly.

    Attributes:
        generator: `f(NetworkSpec)` -> a Keras model from latents `[n, latent_dim]` to images
            `[n, h, w, c]` in [-1, 1]. If `labelled`, its inputs are `[latents, labels]`, the labels
            `[n]` in `[0, classes)`.
        discriminator: `f(NetworkSpec)` -> a Keras model from images to scores `[n, 1]`, unbounded;
            if `labelled`, from `[images, labels]`.
        keys: names of the configuration's keys that it reads beside those all networks have.
        pixels_per_mg: the images are this times `mg` pixels a side, in three colours; None if the
            network takes images of the data set's shape.
        image_shapes: the shapes that it can make; empty for any.
        labelled: whether both networks take labels.
        demo: configuration values for `--demo`, where they differ from its usual ones.
    """

    generator: Callable[[NetworkSpec], "keras.Model"]
    discriminator: Callable[[NetworkSpec], "keras.Model"]
    keys: tuple[str, ...] = ()
    pixels_per_mg: int | None = None
    image_shapes: tuple[ImageShape, ...] = ()
    labelled: bool = False
    demo: Mapping[str, Any] = field(default_factory=dict)

    def image_shape(self, mg: int | None) -> ImageShape | None:
        """The shape of its images where `mg` alone decides it, otherwise None."""
        if self.pixels_per_mg is None or mg is None:
            return None
        return (self.pixels_per_mg * mg, self.pixels_per_mg * mg, 3)


NETWORKS = Choices(
    "network",
    Network,
    {
        "cnn": Network(
            Lazy("common.networks.cnn:build_generator"),
            Lazy("common.networks.cnn:build_discriminator"),
            keys=("mg", "width"),
            pixels_per_mg=8,  # three layers change the resolution by 2
            demo={"mg": 4, "width": 16},
        ),
        "resnet": Network(
            Lazy("common.networks.resnet:build_generator"),
            Lazy("common.networks.resnet:build_discriminator"),
            keys=("mg", "width"),
            pixels_per_mg=32,  # five blocks change the resolution by 2
            # A ResNet's iteration takes several times a CNN's.
            demo={
                "mg": 1,
                "width": 8,
                "iteration": 400,
                "metric_freq": 200,
                "save_checkpoint_freq": 200,
                "g_beta1": 0.0,
                "d_beta1": 0.0,
                "g_beta2": 0.9,
                "d_beta2": 0.9,
            },
        ),
    },
)
