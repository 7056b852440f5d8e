"""Replays golden runs of the original: `python -m tests.replay_golden FILE...`.

Each file records a short run of the original's own graph in float64 (specification, section 9). It
is trained again here, from the same start values and batches, and every recorded number compared.
Prints, for each file, the worst deviation `|ours - golden| / max(|golden|, 1e-3)` and where it is;
exits 1 if any is above 1e-6.
"""

import importlib
import json
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf

from common.layers import BatchNorm, Gamma, SpectralNormalized
from common.networks import NETWORKS, Normalization
from common.networks.blocks import summary_index
from common.training.run import set_precision
from common.training.step import DiscriminatorBatch, Optimizers, TrainingStep

LIMIT = 1e-6
VARIANTS = ("no_gamma_cnn", "same_gamma_cnn", "diff_gamma_cnn", "no_gamma_resnet")
D_STEP_TAGS = {
    "d_loss_real": "loss/d/real",
    "d_loss_fake": "loss/d/fake",
    "d_loss": "loss/d",
    "d_real": "d/real",
    "d_fake": "d/fake",
    "d_loss_gp": "loss/d/gp",
}


def random_state(text):
    """The generator that the golden runs draw from for the purpose `text`."""
    return np.random.RandomState(zlib.crc32(text.encode()))


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


class Replay:
    """A golden case, built by the project's own networks and training step."""

    def __init__(self, golden):
        self.golden = golden
        self.case = case = golden["case"]
        self.deviations = {}
        if case["variant"] not in VARIANTS:
            raise ValueError(f"unknown variant {case['variant']!r} in the golden case")
        variant = importlib.import_module(f"{case['variant']}.gan_task").VARIANT
        normalization = Normalization(case["sn_mode"], case.get("scale", 1.0), variant.gamma)
        networks = NETWORKS[variant.network]
        self.generator = networks.build_generator(case["mg"])
        self.discriminator = networks.build_discriminator(case["mg"], normalization)
        self.variables = original_names(self.generator) | original_names(self.discriminator)
        self._set_start_values()
        self.step = TrainingStep(
            variant,
            self.generator,
            self.discriminator,
            Optimizers.adam(SimpleNamespace(**case)),
            case.get("d_gp_coe"),
        )
        self._discriminator_step = tf.function(self.step.discriminator_step, autograph=False)
        self._last_discriminator_step = tf.function(self.step.discriminator_step, autograph=False)
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
            scalars = self._discriminator_step(batch)
            self._compare_d_step(f"{place}/d_steps[{j}]", scalars, recorded["d_steps"][j])
        latents = self._draw(index, "g", case["g_batch"]).latents if "g_batch" in case else None
        scalars, before_update = self._last(batches[-1], latents)
        self._compare_d_step(f"{place}/d_steps[-1]", before_update, recorded["d_steps"][-1])
        self._compare_summary(f"{place}/summary", scalars, recorded["summary"])
        self._compare(f"{place}/g_loss", scalars["loss/g"], recorded["g_loss"])
        self._compare_variables(f"{place}/variables_after", recorded["variables_after"])

    def _last(self, batch, latents):
        """What the iteration logs, and what the last discriminator step measured before it."""
        if self.step.variant.summary_after_update:
            # What it logs is measured after the update: the losses before it are asked for apart.
            before = tf.function(self.step.measure_discriminator, autograph=False)(batch)
            return self._last_steps(batch, latents), before
        scalars = self._last_steps(batch, latents)
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
        ours = float(ours)
        # A NaN compares false with everything: it must count as the worst, not as the best.
        deviation = abs(ours - golden) / max(abs(golden), 1e-3)
        self.deviations[place] = deviation if np.isfinite(deviation) else np.inf


def replay(path, iterations=None):
    """Replays one file in float64, or its first iterations.

    Returns:
        `{place: deviation}` of every recorded number that was reached.
    """
    floatx = keras.config.floatx()
    set_precision("float64")
    try:
        return Replay(json.loads(Path(path).read_text())).run(iterations)
    finally:
        set_precision(floatx)


def main(paths):
    if not paths:
        print(__doc__, file=sys.stderr)
        return 2
    failed = False
    for path in paths:
        deviations = replay(path)
        place = max(deviations, key=deviations.get)
        failed |= not deviations[place] <= LIMIT
        print(f"{path}: {deviations[place]:.3e} at {place} ({len(deviations)} numbers)", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
