"""The golden runs of the original BSN code (FIDELITY section 9).

Each file records a short run of the original's own graph in float64. It is trained again here, from
the same start values and batches, and every recorded number is compared.
"""

import importlib

import keras
import numpy as np
import tensorflow as tf

from common.configuration.settings import make_settings
from common.layers import BatchNorm, Gamma, SpectralNormalized
from common.networks import NETWORKS
from common.networks.blocks import summary_index
from common.networks.build import build_networks
from common.training.run import set_precision
from common.training.step import DiscriminatorBatch, GeneratorBatch
from common.training.steps import choose_step
from tests.golden_systems.measure import random_state, relative_deviation

LIMIT = 1e-6
VARIANTS = ("no_gamma_cnn", "same_gamma_cnn", "diff_gamma_cnn", "no_gamma_resnet")
# Keys without which a job is not one, and which no number of the runs depends on.
_UNUSED = {
    "dataset": "digits",
    "iteration": 1,
    "run": 0,
    "latent_dim": 128,
    **dict.fromkeys(("vis_freq", "vis_num_h", "vis_num_w", "summary_freq", "metric_freq"), 1),
    **dict.fromkeys(("save_checkpoint_freq", "extra_checkpoint_freq"), 1),
}
D_STEP_TAGS = {
    "d_loss_real": "loss/d/real",
    "d_loss_fake": "loss/d/fake",
    "d_loss": "loss/d",
    "d_real": "d/real",
    "d_fake": "d/fake",
    "d_loss_gp": "loss/d/gp",
}


def original_names(model):
    """`{name of the original's variable: our variable}` of all variables of a network."""
    names = {}
    for layer in model.layers:
        scope = f"{model.name}/{layer.name.replace('.', '/')}"
        if isinstance(layer, Gamma):
            names[f"{model.name}/scale"] = layer.gamma
        elif isinstance(layer, BatchNorm):
            for name in ("beta", "gamma", "moving_mean", "moving_variance"):
                names[f"{scope}/{name}"] = getattr(layer, name)
        elif isinstance(layer, SpectralNormalized):
            names |= _weight_names(scope, layer.layer)
            u_scopes = ["u"] if len(layer.u) == 1 else ["SN1/u", "SN2/u"]
            names |= {f"{scope}/{u}": v for u, v in zip(u_scopes, layer.u, strict=True)}
            if layer.own_gamma is not None:
                names[f"{model.name}/scale{summary_index(layer.name)}"] = layer.own_gamma
        elif layer.weights:
            names |= _weight_names(scope, layer)
    return names


def _weight_names(scope, layer):
    dense = isinstance(layer, keras.layers.Dense)
    kernel, bias = ("matrix", "bias") if dense else ("w", "biases")
    return {f"{scope}/{kernel}": layer.kernel, f"{scope}/{bias}": layer.bias}


def start_value(case, name, shape):
    """The value that a golden run starts a variable from: float64 of `shape`."""
    n = random_state(f"init/{case['name']}/{name}").standard_normal(shape)
    kind = name.rsplit("/", 1)[-1].rstrip("0123456789")
    if kind in ("w", "matrix"):
        resnet = case["variant"] == "no_gamma_resnet"
        return n * (np.sqrt(1 / np.prod(shape[:-1])) if resnet else 0.02)
    if kind in ("bias", "biases", "beta", "moving_mean"):
        return 0.1 * n
    if kind in ("gamma", "scale"):
        return 1 + 0.1 * n
    if kind == "moving_variance":
        return 1 + 0.1 * np.abs(n)
    if kind == "u":
        return n
    raise ValueError(f"{case['name']}: no rule for the start value of {name}")


def settings_of(case, step):
    """The project's `Settings` of a golden case."""
    variant = importlib.import_module(f"{case['variant']}.gan_task").VARIANT
    sizes = {"batch": "batch_size", "d_batch": "d_batch_size", "g_batch": "g_batch_size"}
    keys = ("g_lr", "d_lr", "g_beta1", "d_beta1", "g_beta2", "d_beta2", "n_dis", "mg", "sn_mode",
            "scale", "d_gp_coe")  # fmt: skip
    values = {key: case[key] for key in keys if key in case}
    values |= {key: case[name] for name, key in sizes.items() if name in case}
    if variant.choices.get("redraw_latents"):
        values["num_gpus"] = 1
    return make_settings(variant, {**_UNUSED, **values, "step": step})


class Replay:
    """A golden case, built by the project's own networks and training step."""

    def __init__(self, golden, step="auto"):
        self.golden = golden
        self.case = case = golden["case"]
        self.deviations = {}
        settings = settings_of(case, step)
        shape = NETWORKS[settings.network].image_shape(settings.mg)
        networks = build_networks(settings, 0, shape, None)
        self.generator, self.discriminator = networks.generator, networks.discriminator
        self.variables = original_names(self.generator) | original_names(self.discriminator)
        self._set_start_values()
        self.step = choose_step(settings, networks).step
        self._discriminator_step = tf.function(self.step.discriminator_step, autograph=False)
        self._last_steps = tf.function(self.step.last_steps, autograph=False)

    def _set_start_values(self):
        recorded = {v["name"]: tuple(v["shape"]) for v in self.golden["variables"]}
        ours = {name: tuple(v.shape) for name, v in self.variables.items()}
        if recorded != ours:
            raise ValueError(f"variables differ: {sorted(recorded.items() ^ ours.items())}")
        for name, variable in self.variables.items():
            variable.assign(start_value(self.case, name, variable.shape))

    def _draw(self, iteration, step, count):
        size = self.case["size"]
        r = random_state(f"batch/{self.case['name']}/{iteration}/{step}")
        images = r.uniform(-1, 1, (count, size, size, 3))
        latents = r.standard_normal((count, 128))
        mix = r.uniform(0, 1, (count, 1, 1, 1))
        return DiscriminatorBatch(*(tf.constant(x) for x in (images, latents, mix)))

    def run(self, iterations=None):
        """Trains the recorded iterations, or the first few; returns `{place: deviation}`."""
        for index, recorded in enumerate(self.golden["iterations"][:iterations]):
            self._iterate(index, recorded)
        if iterations is None:
            self._compare_samples(self.golden["samples"])
        return self.deviations

    def _iterate(self, index, recorded):
        case = self.case
        size = case.get("d_batch", case.get("batch"))
        batches = [self._draw(index, j, size) for j in range(case["n_dis"])]
        place = f"iterations[{index}]"
        for j, batch in enumerate(batches[:-1]):
            scalars = self._discriminator_step(batch).scalars
            self._compare_d_step(f"{place}/d_steps[{j}]", scalars, recorded["d_steps"][j])
        latents = None
        if "g_batch" in case:
            latents = GeneratorBatch(self._draw(index, "g", case["g_batch"]).latents)
        scalars, before_update = self._last(batches[-1], latents)
        self._compare_d_step(f"{place}/d_steps[-1]", before_update, recorded["d_steps"][-1])
        self._compare_summary(f"{place}/summary", scalars, recorded["summary"])
        self._compare(f"{place}/g_loss", scalars["loss/g"], recorded["g_loss"])
        self._compare_variables(f"{place}/variables_after", recorded["variables_after"])

    def _last(self, batch, latents):
        """What the iteration logs, and what the last discriminator step measured before it."""
        if self.step.settings.summary_after_update:
            # What it logs is measured after the update: the losses before it are asked for apart.
            before = tf.function(self.step.measure_discriminator, autograph=False)(batch)
            return self._last_steps(batch, latents).scalars, before.scalars
        scalars = self._last_steps(batch, latents).scalars
        return scalars, scalars

    def _compare_d_step(self, place, scalars, recorded):
        for key, golden in recorded.items():
            self._compare(f"{place}/{key}", scalars[D_STEP_TAGS[key]], golden)

    def _compare_summary(self, place, scalars, recorded):
        sigmas = [scalars[tag] for tag in self._sigma_tags()]
        for i, (ours, golden) in enumerate(zip(sigmas, recorded["sigmas"], strict=True)):
            self._compare(f"{place}/sigmas[{i}]", ours, golden)
        for key in recorded.keys() - {"sigmas"}:
            self._compare(f"{place}/{key}", scalars[f"d/{key}"], recorded[key])

    def _sigma_tags(self):
        """In the order of the layers, which is that of the tags."""
        tags = []
        layers = [x for x in self.discriminator.layers if isinstance(x, SpectralNormalized)]
        for layer in sorted(layers, key=lambda x: summary_index(x.name)):
            tag = f"d/sigma{summary_index(layer.name)}"
            tags += [tag] if len(layer.u) == 1 else [f"{tag}_{j}" for j in range(3)]
        return tags

    def _compare_variables(self, place, recorded):
        if recorded.keys() != self.variables.keys():
            raise ValueError(f"{place}: {sorted(recorded.keys() ^ self.variables.keys())}")
        for name, golden in recorded.items():
            flat = self.variables[name].numpy().ravel()
            n = flat.size
            entries = [flat[i] for i in (0, n // 3, 2 * n // 3, n - 1)]
            ours = [flat.sum(), np.linalg.norm(flat), *entries]
            for i, (a, b) in enumerate(zip(ours, golden, strict=True)):
                self._compare(f"{place}/{name}[{i}]", a, b)

    def _compare_samples(self, recorded):
        z = random_state(f"sample/{self.case['name']}").standard_normal((4, 128))
        images = self.generator(z, training=False).numpy()
        flat = images.ravel()
        pixels = flat[:: flat.size // 16][:16]
        self._compare("samples/mean", flat.mean(), recorded["mean"])
        self._compare("samples/std", flat.std(), recorded["std"])
        for i, (ours, golden) in enumerate(zip(pixels, recorded["pixels"], strict=True)):
            self._compare(f"samples/pixels[{i}]", ours, golden)

    def _compare(self, place, ours, golden):
        self.deviations[place] = relative_deviation(float(ours), golden, least=1e-3)


def replay(golden, iterations=None, step="auto"):
    """Replays one file's contents in float64, or its first iterations.

    Args:
        golden: the file's contents.
        iterations: how many, None for all.
        step: "auto", "plain" or "fused".

    Returns:
        `{place: deviation}` of every recorded number that was reached.
    """
    floatx = keras.config.floatx()
    set_precision("float64")
    try:
        return Replay(golden, step).run(iterations)
    finally:
        set_precision(floatx)
