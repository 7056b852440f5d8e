"""What would keep a job from starting, found before any job is trained."""

import dataclasses

import keras
import tensorflow as tf

from common.configuration.settings import Settings, own_paths
from common.data import ImageSource
from common.errors import UserError
from common.losses import LOSSES, PENALTIES, PenaltyInputs
from common.networks import NETWORKS
from common.networks.build import Networks, call_network
from common.sampling import SAMPLINGS
from common.training.batches import labels_of
from common.training.run import Resources, networks_for, set_precision
from common.training.step import full_precision
from common.training.steps import choose_step

# What networks and steps are built from: jobs that agree in these keys are checked together.
_OF_NETWORKS = (
    *("dataset", "expected_images", "expected_classes", "precision", "step"),
    *("network", "mg", "width", "latent_dim", "loss", "penalty"),
    *("sn_mode", "g_sn_mode", "gamma", "sn_iterations", "sn_gradient", "sn_advance", "sn_epsilon"),
    *("scale", "ema_decay", "redraw_latents", "batch_norm_in_d_steps"),
)


def check_devices(count: int) -> None:
    """Finds that there are fewer GPUs than the configuration names, but some.

    Raises:
        UserError: there are.
    """
    gpus = len(tf.config.list_physical_devices("GPU"))
    if 0 < gpus < count:
        raise UserError(
            f"the configuration's `gpu` names {count} devices and TensorFlow sees {gpus}: correct "
            "the ids in config.py, or say --set gpu=0."
        )


def check_job(settings: Settings, resources: Resources, replicas: int) -> None:
    """Finds what would keep a job from starting, before any job is trained.

    Args:
        settings: the job's `Settings`.
        resources: the `Resources`.
        replicas: how many devices it is to be trained on.

    Raises:
        UserError: data or network are missing, or the configuration does not fit them.
    """
    source = resources.source(settings)
    _check_shape(settings, source)
    _check_batches(settings, len(source), replicas)
    if NETWORKS[settings.network].labelled:
        labels_of(source)
    if settings.jit_compile and replicas > 1:
        raise UserError(f"jit_compile=True is for one device, and the job has {replicas}.")
    if settings.num_gpus not in (None, replicas):
        raise UserError(
            f"num_gpus={settings.num_gpus}, and the job's entry of `gpu` in config.py names "
            f"{replicas} device(s): make them agree."
        )
    if settings.step == "fused" or own_paths(dataclasses.asdict(settings)):
        key = tuple(getattr(settings, name) for name in _OF_NETWORKS)
        resources.once(key, lambda: check_networks(settings, resources))
    resources.feature_network(settings)


def _check_shape(settings: Settings, source: ImageSource) -> None:
    row = NETWORKS[settings.network]
    shape = tuple(source.image_shape)
    wanted = row.image_shape(settings.mg)
    if wanted is not None and wanted != shape:
        fitting = shape[0] * settings.mg // wanted[0]
        raise UserError(
            f"mg={settings.mg} gives images of {wanted[0]}x{wanted[1]}, and {settings.dataset} has "
            f"images of shape {shape}: say --set mg={fitting} or --only mg={fitting}."
        )
    if row.image_shapes and shape not in row.image_shapes:
        raise UserError(
            f"network={settings.network} is for images of shape "
            f"{' or '.join(map(str, row.image_shapes))}, and {settings.dataset} has {shape}."
        )


def _check_batches(settings: Settings, images: int, replicas: int) -> None:
    sizes = {
        name: getattr(settings, name) for name in ("batch_size", "d_batch_size", "g_batch_size")
    }
    drawn = settings.d_batch_size or settings.batch_size
    if SAMPLINGS[settings.sampling].in_epochs:
        if settings.last_batch == "drop" and drawn > images:
            raise UserError(
                f"a batch of {drawn} images is more than the {images:,} of {settings.dataset}, and "
                "last_batch=drop leaves none: take smaller batches, or last_batch=keep."
            )
        if settings.last_batch == "keep" and images % drawn:
            sizes["an epoch's last batch"] = images % drawn
    for name, size in sizes.items():
        if size is not None and size % replicas:
            raise UserError(f"{name}={size} cannot be split equally among {replicas} devices.")


def check_networks(settings: Settings, resources: Resources) -> None:
    """Builds a job's networks, calls them and its loss once, and chooses the step.

    Raises:
        UserError: they cannot be built or called, do not make images and scores of the right
            shapes, or cannot be trained by the step that the configuration asks for.
    """
    keras.backend.clear_session()
    set_precision(settings.precision)
    source = resources.source(settings)
    try:
        networks = networks_for(settings, source, root_seed=0)
        shapes = _try_out(settings, networks, source.classes)
    except UserError:
        raise
    except Exception as error:  # whatever a user's own function raises
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise UserError(
            f"network={settings.network}, sn_mode={settings.sn_mode}, loss={settings.loss}, "
            f"penalty={settings.penalty} cannot be used: {type(error).__name__}: {reason}"
        ) from error
    wanted = (2, *source.image_shape), (2, 1)
    if shapes != wanted:
        raise UserError(
            f"network={settings.network} makes of two latents images of shape {shapes[0]} and "
            f"scores of shape {shapes[1]}; {settings.dataset} needs {wanted[0]} and {wanted[1]}."
        )
    choose_step(settings, networks)


def _try_out(
    settings: Settings, networks: Networks, classes: int | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Calls the networks, the loss and the penalty once, on two latents.

    What is wrong in a call does not show when networks are built.

    Returns:
        The shapes of the images and of the scores.
    """
    latents = tf.zeros([2, settings.latent_dim], keras.config.floatx())
    labels = None
    if NETWORKS[settings.network].labelled and classes is not None:
        labels = tf.constant([0, classes - 1], tf.int64)
    images = call_network(networks.generator, latents, labels, training=False)

    def score(images: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
        return full_precision(call_network(networks.discriminator, images, labels, training=False))

    scores, loss = score(images, labels), LOSSES[settings.loss]
    terms = {"real": loss.real(scores), "fake": loss.fake(scores)}
    terms["generator"] = loss.generator(scores)
    if penalty := PENALTIES[settings.penalty].function:
        mix = tf.fill([2, 1, 1, 1], tf.cast(0.5, images.dtype))
        inputs = (score, networks.discriminator, images, images, mix, labels, labels)
        terms["penalty"] = penalty(PenaltyInputs(*inputs))
    for name, term in terms.items():
        if term.shape != ():
            raise ValueError(f"the {name} term of the loss has the shape {term.shape}, not ()")
    return tuple(images.shape), tuple(scores.shape)
