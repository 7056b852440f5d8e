"""What a path names of trained networks: a run, one of its checkpoints, an exported generator."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import common.layers  # noqa: F401 (registers what exported generators are made of)
from common.configuration.settings import Settings
from common.errors import UserError
from common.metrics.generated import GeneratedImages
from common.randomness import RandomStream
from common.training.checkpoints import iteration_of, list_checkpoints
from common.training.sampling import Sampler
from common.training.trained_run import TrainedRun, restore_first

_EXPORTS_SAMPLES = 50_000  # by default


@dataclass(frozen=True)
class TrainedModels:
    """A generator, and its discriminator where that is known, with their trained weights.

    Attributes:
        name: For messages.
        generator: The Keras model; of a SavedModel, its signature as a function of latents.
        discriminator: The Keras model, or None of an exported generator.
        settings: The run's, or None of an exported generator.
        latent_dim: Length of a latent vector.
        classes: Number of classes of a conditional generator, or None.
        record: JSON-able: where they are from.
        generate: From latents `[n, latent_dim]` and labels `[n]` (None of an unconditional
            generator) to images `[n, H, W, 3]` in [-1, 1], in inference mode.
        draw_inputs: From a number of images (None: as many as the run's metrics need, or 50,000)
            and a seed to latents `[count, latent_dim]` and labels `[count]` or None; a run's are
            those of its metrics, whatever the seed.
        seed: Of whatever an evaluation of them draws; that of the run, or None.
    """

    name: str
    generator: Any
    discriminator: Any
    settings: Settings | None
    latent_dim: int
    record: dict[str, Any]
    generate: Callable[[Any, Any], Any]
    draw_inputs: Callable[[int | None, int], tuple[Any, Any]]
    seed: int | None = None
    classes: int | None = None

    def images(self, count: int | None = None, seed: int | None = None) -> GeneratedImages:
        """The generator's images as a set.

        Args:
            count: Number of images; None for as many as `draw_inputs` says.
            seed: Of an exported generator's latents; None for 0.
        """
        latents, labels = self.draw_inputs(count, seed or 0)
        record = self.record if self.seed is not None else {**self.record, "seed": seed or 0}

        def generate(numbers: np.ndarray) -> Any:
            chosen = None if labels is None else tf.gather(labels, numbers)
            return self.generate(tf.gather(latents, numbers), chosen)

        return GeneratedImages(self.name, generate, len(latents), record, self.seed or 0)


def holds_models(path: Path) -> bool:
    """Whether a path names what `open_models` opens.

    Raises:
        UserError: It is a checkpoint without a run, or no path at all.
    """
    try:
        return _is_export(path) or _run_of(path) is not None
    except OSError as error:  # such as a name that is too long
        raise UserError(f"{path}: {error.strerror}") from error


def open_models(path: Path, trusted: Collection[str] = ()) -> TrainedModels:
    """Opens trained networks.

    Args:
        path: A run's results folder (the newest checkpoint that can be restored); one of its
            checkpoints, as `model-<id>`, its `.index` file or the folder `global_id-<id>`; or an
            exported generator, a `.keras` file or the folder of a SavedModel whose signature
            `serving_default` has one input and one output. The author of an export must be
            trusted: TensorFlow's graphs may write files, and of `.keras` files Keras only refuses
            the code that it knows to be harmful.
        trusted: modules that may be imported because a run's record names them.

    Raises:
        UserError: It is none of these, or cannot be read.
    """
    run = _run_of(path)
    if run:
        return _open_run(*run, trusted)
    if _is_export(path):
        return _open_export(path)
    raise UserError(f"{path} is not a run, a checkpoint of one, nor an exported generator")


def _is_export(path: Path) -> bool:
    return (path.suffix == ".keras" and path.exists()) or (path / "saved_model.pb").exists()


def _run_of(path: Path) -> tuple[Path, Path | None] | None:
    """`(run's folder, checkpoint or None for the newest)`, or None if it is not a run's."""
    if (path / "run.json").exists():
        return path, None
    if path.suffix == ".index":
        path = path.with_suffix("")
    if path.is_dir() and path.name.startswith("global_id-"):
        path = path / path.name.replace("global_id", "model")
    if not (path.parent / f"{path.name}.index").exists():
        return None
    for folder in path.parents:
        if (folder / "run.json").exists():
            return folder, path
    raise UserError(f"{path}: a checkpoint without a run.json above it; name the run's own copy")


def _open_run(folder: Path, checkpoint: Path | None, trusted: Collection[str]) -> TrainedModels:
    run = TrainedRun(folder, trusted)
    candidates = [checkpoint] if checkpoint else list_checkpoints(run.folder.checkpoints)
    if not candidates:
        raise UserError(f"{folder}: the run has no checkpoint yet")
    networks = run.build_networks()
    restored = restore_first(run.trackables(networks), candidates)
    settings, iteration = run.settings, iteration_of(restored)
    strategy = tf.distribute.get_strategy()
    sampler = Sampler(strategy, networks.sampled, settings, run.root_seed, run.classes)
    return TrainedModels(
        name=restored.name,
        generator=networks.sampled,
        discriminator=networks.discriminator,
        settings=settings,
        latent_dim=settings.latent_dim,
        record={"checkpoint": str(restored)},
        generate=sampler.generate,
        draw_inputs=lambda count, seed: sampler.metric_inputs(iteration, count),
        seed=run.root_seed,
        classes=run.classes,
    )


def _open_export(path: Path) -> TrainedModels:
    try:
        load = _load_saved_model if path.is_dir() else _load_keras_model
        generator, generate, shape = load(path)
    except UserError:
        raise
    except Exception as error:  # whatever Keras and TensorFlow make of a damaged file
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise UserError(f"{path} cannot be loaded as a generator: {reason}") from error
    if isinstance(shape[0], tuple):
        raise UserError(f"{path} takes {len(shape)} inputs; name its run, which knows the labels")
    if len(shape) != 2 or shape[1] is None:
        raise UserError(f"{path} takes {list(shape)} instead of latents [n, d]: not a generator")
    latent_dim = int(shape[1])
    return TrainedModels(
        name=path.name,
        generator=generator,
        discriminator=None,
        settings=None,
        latent_dim=latent_dim,
        record={"generator": str(path)},
        generate=lambda latents, labels: generate(latents),
        draw_inputs=lambda count, seed: (
            RandomStream(seed, "latents of metrics").normal(
                [count or _EXPORTS_SAMPLES, latent_dim]
            ),
            None,
        ),
    )


# Each returns the model, it as a function of latents, and the latents' shape.
_Loaded = tuple[Any, Callable[[Any], Any], tuple[Any, ...]]


def _load_keras_model(path: Path) -> _Loaded:
    model = keras.models.load_model(path, compile=False, safe_mode=True)
    return model, lambda latents: model(latents, training=False), tuple(model.input_shape)


def _load_saved_model(path: Path) -> _Loaded:
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    _, inputs = signature.structured_input_signature
    if len(inputs) != 1 or len(signature.structured_outputs) != 1:
        raise UserError(
            f"{path} has {len(inputs)} inputs and {len(signature.structured_outputs)} outputs "
            "instead of one each: not a generator"
        )
    ((name, spec),) = inputs.items()

    def generate(latents: Any) -> Any:
        (images,) = signature(**{name: tf.cast(latents, spec.dtype)}).values()
        return images

    return generate, generate, tuple(spec.shape)
