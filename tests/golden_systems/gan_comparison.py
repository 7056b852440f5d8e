"""The golden values of the comparison of six GANs (GAN_COMPARISON section 9).

The file holds single functions' inputs and outputs, in float64. A case is replayed by the project's
own function, which `_REPLAYS` names.
"""

import functools
import operator

import keras
import numpy as np
import tensorflow as tf

from common.layers import LayerNorm, SpectralNormConv2D
from common.losses import LOSSES
from common.metrics.frechet import GaussianAccumulator, frechet_distance
from common.metrics.inception_score import InceptionScore
from common.training.adam import Adam
from common.training.run import set_precision
from tests.golden_systems.measure import relative_deviation

LIMIT = 1e-9


def _spectral_norm(inputs):
    """Two successive training passes of one kernel, and the gradient of `sum(kernel * r)` each."""
    kernel, r = inputs["W"], inputs["r"]
    layer = SpectralNormConv2D(
        keras.layers.Conv2D(kernel.shape[-1], kernel.shape[:2], use_bias=False),
        gradient="constant",
        advance="pass",
        epsilon="maximum",
    )
    images = tf.zeros([1, *kernel.shape[:2], kernel.shape[2]], tf.float64)
    layer(images)
    layer.layer.kernel.assign(kernel)
    layer.u[0].assign(inputs["u"].reshape(layer.u[0].shape))
    return {name: _pass(layer, r) for name in ("pass_1", "pass_2")}


def _pass(layer, r):
    variable = layer.layer.kernel.value
    with tf.GradientTape() as tape:
        normalized, _ = layer.normalized_weights(training=True)  # as a pass does
        loss = tf.reduce_sum(normalized * r)
    return {
        "u": layer.u[0].numpy().ravel(),
        "v": layer.v[0].numpy().ravel(),
        "sigma": layer.sigma().numpy(),
        "grad_W": tape.gradient(loss, variable).numpy(),
    }


def _softplus(inputs):
    loss = LOSSES["non_saturating"]
    real, fake = (tf.constant(inputs[name]) for name in ("y_real", "y_fake"))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch((real, fake))
        d_loss = loss.real(real) + loss.fake(fake)
        g_loss = loss.generator(fake)
    return {
        "d_loss": d_loss,
        "g_loss": g_loss,
        "d_grad_y_real": tape.gradient(d_loss, real),
        "d_grad_y_fake": tape.gradient(d_loss, fake),
        "g_grad_y_fake": tape.gradient(g_loss, fake),
    }


def _adam(inputs):
    return {
        recorded: _adam_steps(inputs, form)
        for recorded, form in (("pytorch", "pytorch"), ("chainer", "keras"))
    }


def _adam_steps(inputs, form):
    variable = keras.Variable(inputs["start"])
    optimizer = Adam(
        inputs["lr"], inputs["beta1"], inputs["beta2"], epsilon=inputs["epsilon"], form=form
    )
    optimizer.build([variable])
    steps = []
    for gradient in inputs["gradients"]:
        optimizer.apply([tf.constant(gradient)])
        steps.append(variable.numpy())
    return np.array(steps)


def _layer_norm(inputs):
    layer = LayerNorm(inputs["epsilon"])
    x = tf.constant(inputs["x"])
    layer(x)
    layer.gamma.assign(inputs["gamma"])
    layer.beta.assign(inputs["beta"])
    variables = [layer.gamma.value, layer.beta.value]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(y * inputs["r"])
    by_x, by_gamma, by_beta = tape.gradient(loss, [x, *variables])
    return {"y": y, "grad_x": by_x, "grad_gamma": by_gamma, "grad_beta": by_beta}


def _inception_score(inputs):
    splits = int(inputs["splits"])
    count = len(inputs["logits"]) // splits * splits  # what is left over is dropped
    score = InceptionScore(count, inputs["logits"].shape[1], splits)
    score.update(None, inputs["logits"][:count])
    result = score.result()
    return {"mean": result["inception_score_mean"], "std": result["inception_score_std"]}


def _fid(inputs):
    statistics = []
    for name in ("real", "fake"):
        accumulator = GaussianAccumulator(inputs[name].shape[1])
        accumulator.update(inputs[name])
        statistics.append(accumulator.statistics())
    return {"fid": frechet_distance(*statistics)}


_REPLAYS = {
    "spectral_norm": _spectral_norm,
    "softplus": _softplus,
    "adam_A": _adam,
    "adam_B": _adam,
    "layer_norm_features": _layer_norm,
    "layer_norm_images": _layer_norm,
    "inception_score": _inception_score,
    "fid": _fid,
}

NAMES = tuple(_REPLAYS)

# The scores of single splits: mean and deviation are theirs.
_NOT_RETURNED = {"inception_score/scores"}


def replay(golden, names=None):
    """Replays the cases of a file, or some.

    Returns:
        `{place: deviation}`; infinite for a case that nothing replays.
    """
    floatx = keras.config.floatx()
    set_precision("float64")
    try:
        deviations = {}
        for case in golden["cases"]:
            if names is None or case["name"] in names:
                deviations |= _replay_case(case)
        return deviations
    finally:
        set_precision(floatx)


def _replay_case(case):
    if case["name"] not in _REPLAYS:
        return {f"{case['name']}, which nothing replays": np.inf}
    ours = _REPLAYS[case["name"]](_arrays(case["in"]))
    deviations = {}
    for place, golden in _leaves(case["out"], case["name"]):
        if place not in _NOT_RETURNED:
            value = functools.reduce(operator.getitem, place.split("/")[1:], ours)
            deviations[place] = _worst(np.asarray(value), np.asarray(golden))
    return deviations


def _arrays(value):
    if isinstance(value, dict):
        return {key: _arrays(part) for key, part in value.items()}
    return np.array(value) if isinstance(value, list) else value


def _leaves(value, place):
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, f"{place}/{key}")
    else:
        yield place, value


def _worst(ours, golden):
    pairs = zip(ours.ravel(), golden.ravel(), strict=True)
    return max(relative_deviation(a, b, least=1e-3) for a, b in pairs)
