"""Generators as sets of images: those of a latent each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import common.layers  # noqa: F401 (registers what exported generators are made of)
from common.errors import UserError

Generate = Callable[[tf.Tensor], Any]


class GeneratedImages:
    """A generator's images as a set: image `i` is that of latent `i`.

    It is read like an `ImageSource`, but for the images being floats in [-1, 1].
    """

    route = "generator"

    def __init__(
        self,
        name: str,
        generate: Generate,
        latents: Any,
        record: dict[str, Any],
        seed: int = 0,
    ) -> None:
        """Keeps what it is given; nothing is generated yet.

        Args:
            name: For messages.
            generate: From latents `[n, latent_dim]` to images `[n, H, W, 3]`.
            latents: `[total, latent_dim]`.
            record: JSON-able description of the generator and its latents.
            seed: Of whatever else an evaluation of them draws; that of the generator's run.
        """
        self.name = name
        self.seed = seed
        self.record = {**record, "images": len(latents)}
        self._generate = generate
        self._latents = latents

    def __len__(self) -> int:
        return len(self._latents)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Generates images by number, float `[n, H, W, 3]`."""
        return np.asarray(self._generate(tf.gather(self._latents, indices)))


def load_generator(path: Path) -> tuple[Generate, int]:
    """Loads an exported generator.

    Args:
        path: A `.keras` file, or the folder of a SavedModel whose signature `serving_default` has
            one input and one output. Its author must be trusted: TensorFlow's graphs may write
            files, and of `.keras` files Keras only refuses the code that it knows to be harmful.

    Returns:
        The generator, from latents float32 `[n, d]` to images `[n, H, W, 3]` in [-1, 1], in
        inference mode, and `d`.

    Raises:
        UserError: The file cannot be loaded or is not a generator.
    """
    try:
        load = _load_saved_model if path.is_dir() else _load_keras_model
        generate, shape = load(path)
    except UserError:
        raise
    except Exception as error:  # whatever Keras and TensorFlow make of a damaged file
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise UserError(f"{path} cannot be loaded as a generator: {reason}") from error
    if len(shape) != 2 or shape[1] is None:
        raise UserError(f"{path} takes {list(shape)} instead of latents [n, d]: not a generator")
    return generate, int(shape[1])


def _load_keras_model(path: Path) -> tuple[Generate, tuple]:
    model = keras.models.load_model(path, compile=False, safe_mode=True)
    return (lambda latents: model(latents, training=False)), tuple(model.input_shape)


def _load_saved_model(path: Path) -> tuple[Generate, tuple]:
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    _, inputs = signature.structured_input_signature
    if len(inputs) != 1 or len(signature.structured_outputs) != 1:
        raise UserError(
            f"{path} has {len(inputs)} inputs and {len(signature.structured_outputs)} outputs "
            "instead of one each: not a generator"
        )
    ((name, spec),) = inputs.items()

    def generate(latents: tf.Tensor) -> tf.Tensor:
        (images,) = signature(**{name: tf.cast(latents, spec.dtype)}).values()
        return images

    return generate, tuple(spec.shape)
