"""How published numbers are made: one declaration for each way (specification, section 6)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from common.pixels import scale_pixels, to_uint8

PIL_BICUBIC = "PIL bicubic"


@dataclass(frozen=True)
class Protocol:
    """The choices in which evaluations of the same images differ.

    Attributes:
        pixels: What becomes of a generator's values in [-1, 1]: "unrounded", "truncated"
            (`x * 127.5 + 128` to uint8) or "rounded" to uint8.
        centre: uint8 levels reach the network as `(x - centre) / centre`.
        score_resize: How the Inception Score's images are resized to 299x299, "PIL bicubic" or a
            name in `RESIZES`.
        distance_resize: Likewise those of the FID, the KID and PRDC.
        classes: Number of logits that count in the Inception Score, from the first on.
        with_bias: Whether the last layer's bias is part of them; None for what the file of the
            network gives, see `InceptionNetwork`.
        splits: Number of splits of the Inception Score.
        ddof: What is subtracted from it in the standard deviation.
        shuffle_seed: Seed of NumPy's legacy generator that shuffles the Inception Score's images.
        is_samples: Number of samples for the Inception Score; None for all there are.
        fid_samples: Number of samples, the first of those, for all other metrics.
        real_images: Number of real images, drawn at random.
        distance: Name in `frechet.DISTANCES`.
    """

    pixels: Literal["unrounded", "truncated", "rounded"]
    centre: float
    score_resize: str
    distance_resize: str
    classes: int
    with_bias: bool | None
    distance: str
    splits: int = 10
    ddof: int = 0
    shuffle_seed: int | None = None
    is_samples: int | None = None
    fid_samples: int | None = None
    real_images: int | None = None

    def prepare(self, images: np.ndarray, resize: str) -> np.ndarray:
        """Turns images into what the network takes.

        Args:
            images: uint8 `[n, H, W, 3]` in 0..255, or floats in [-1, 1].
            resize: `score_resize` or `distance_resize`.

        Returns:
            float32 `[n, H, W, 3]`, within [-1, 1]; 299x299 if the resize is not a network's.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8:
            images = _QUANTISATIONS[self.pixels](images)
        if resize == PIL_BICUBIC:
            images = np.stack([_resize_by_pil(image) for image in images])
        if images.dtype != np.uint8:
            return images.astype(np.float32)
        if self.centre == 127.5:
            return scale_pixels(images).numpy()
        return (images.astype(np.float32) - self.centre) / np.float32(self.centre)


_QUANTISATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "unrounded": lambda images: images,
    "truncated": lambda images: np.clip(images * 127.5 + 128, 0, 255).astype(np.uint8),
    "rounded": to_uint8,
}


def _resize_by_pil(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((299, 299), Image.Resampling.BICUBIC))


PROTOCOLS = {
    "bsn": Protocol(
        pixels="unrounded",
        centre=127.5,
        score_resize="TF1 bilinear",
        distance_resize="TF1 bilinear",
        classes=1000,
        with_bias=None,
        distance="symmetric",
        is_samples=50_000,
        fid_samples=10_000,
        real_images=5_000,
    ),
    "mmgen": Protocol(
        pixels="truncated",
        centre=128,
        score_resize=PIL_BICUBIC,
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
}
