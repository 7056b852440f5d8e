"""How long a training iteration takes, and what share of that its convolutions alone would need.

    python -m tests.benchmarks.train_step --variant no_gamma_cnn --sn_mode BSN --batch_size 64

One JSON line for the engine: seconds per iteration, images per second (real and generated, of all
discriminator and generator steps), peak memory, GFLOP of the arithmetic that an iteration cannot do
without, and the share of the machine's own rate at it, measured in turn in the same process. With
`--against straightforward`, a line for the plain step on Keras' own layers (separate passes, the
generator run twice, slopes by extra passes), in turn with the others, and the ratio. With
`--against no_summaries`, the same for the engine itself without summaries: nothing is written, and
the ResNet goes without the pass that measures (the CNNs' steps have the values anyway).

The rate is a yardstick, not a bound: its layers run one at a time, and an iteration that overlaps
them may come out a little above 1.
"""

import argparse
import dataclasses
import tempfile

import keras
import tensorflow as tf

from common import graph_optimizers
from common.configuration.settings import make_settings
from common.networks import NETWORKS
from common.networks.build import Networks, build_networks
from common.results.events import EventLog
from common.training.batches import BatchPipeline
from common.training.iterations import CompiledIterations
from common.training.plain_step import PlainStep
from common.training.run import set_precision
from common.training.steps import choose_step
from tests.benchmarks.convolutions import WorkFunctions, iteration_work
from tests.benchmarks.measuring import alternate, peak_rss_bytes, print_line, spread
from tests.training.plain_layers import plain_copy
from tests.training.small import VARIANTS, noise_source, values_of

_PAPERS_MG = {"cifar10": 4, "stl10": 6, "celeba": 8, "imagenet": 4}


def main():
    arguments = _parse()
    set_precision(arguments.precision)
    settings = _settings(VARIANTS[arguments.variant], arguments)
    shape = NETWORKS[settings.network].image_shape(settings.mg)
    pipeline = BatchPipeline(noise_source(shape, 2_000), settings, root_seed=0)
    step = choose_step(settings, build_networks(settings, 0, shape, None)).step
    with tempfile.TemporaryDirectory() as folder:
        functions = {"engine": _engine(step, pipeline, settings, EventLog(folder))}
        for _ in range(2):
            functions["engine"]()
        peak = peak_rss_bytes()
        if arguments.against:
            other = {"straightforward": _straightforward, "no_summaries": _without_summaries}
            functions[arguments.against] = other[arguments.against](step, pipeline, settings)
        work = WorkFunctions(iteration_work(step, settings, with_summaries=arguments.summaries))
        seconds = alternate({**functions, "convolutions": work}, arguments.steps)
    _report(arguments, settings, work, seconds, peak)


def _parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=list(VARIANTS), default="no_gamma_cnn")
    parser.add_argument("--dataset", choices=list(_PAPERS_MG), help="decides the images' size")
    parser.add_argument("--sn_mode", choices=["SN", "BSN"], default="SN")
    parser.add_argument("--batch_size", type=int, help="64; ResNet: 16 for D, and G twice it")
    parser.add_argument("--n_dis", type=int, help="by default 1, the ResNet 5")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--summaries", choices=["on", "off"], default="on")
    parser.add_argument("--steps", type=int, default=10, help="number of timed iterations")
    parser.add_argument("--against", choices=["straightforward", "no_summaries"])
    arguments = parser.parse_args()
    arguments.summaries = arguments.summaries == "on"
    if arguments.batch_size is None:
        redraws = VARIANTS[arguments.variant].choices.get("redraw_latents")
        arguments.batch_size = 16 if redraws else 64
    return arguments


def _settings(variant, arguments):
    redraws = variant.choices.get("redraw_latents")
    dataset = arguments.dataset or variant.choices.get("dataset", "cifar10")
    values = {
        "dataset": dataset,
        "mg": _PAPERS_MG[dataset],
        "width": arguments.width,
        "latent_dim": 128,
        "sn_mode": arguments.sn_mode,
        "scale": 1.0,
        "n_dis": arguments.n_dis or (5 if redraws else 1),
        "batch_size": arguments.batch_size,
        "d_batch_size": arguments.batch_size,
        "g_batch_size": 2 * arguments.batch_size,
        "summary_freq": 1 if arguments.summaries else 10**9,
        "precision": arguments.precision,
        "iteration": 10**9,
    }
    return make_settings(variant, values_of(variant, **values))


def _engine(step, pipeline, settings, events=None):
    """One iteration as the trainer runs it, its summaries being written to `events` if due."""
    iterations = CompiledIterations(
        tf.distribute.get_strategy(),
        step,
        pipeline,
        settings.n_dis,
        0,
    )

    def run():
        ((scalars, _),) = iterations.run(1)
        if settings.summary_freq == 1:
            events.write(0, scalars, 0.0)
            events.flush()

    return run


def _without_summaries(step, pipeline, settings):
    settings = dataclasses.replace(settings, summary_freq=10**9)
    return _engine(type(step)(settings, step.networks), pipeline, settings)


def _straightforward(step, pipeline, settings):
    networks = Networks(*(model and plain_copy(model) for model in step.networks))
    plain = PlainStep(settings, networks)
    batches = iter(pipeline.discriminator_batches(0))
    redrawn = iter(pipeline.generator_batches(0)) if settings.redraw_latents else None

    @tf.function(autograph=False)
    def iterate(d_batches, g_batch):
        for batch in d_batches[:-1]:
            plain.discriminator_step(batch)
        due = settings.summary_freq == 1
        return plain.last_steps(d_batches[-1], g_batch, due).scalars

    def run():
        drawn = [next(batches) for _ in range(settings.n_dis)]
        with graph_optimizers.unrestrained():  # as in a plain program
            measured = iterate(drawn, None if redrawn is None else next(redrawn))
        return {tag: float(value) for tag, value in measured.items()}

    return run


def _report(arguments, settings, work, seconds, peak):
    d_images = settings.d_batch_size or settings.batch_size
    images = 2 * d_images * settings.n_dis + (settings.g_batch_size or settings.batch_size)
    limit = spread(seconds["convolutions"])["median"]
    medians = {name: spread(values)["median"] for name, values in seconds.items()}
    for name in [name for name in seconds if name != "convolutions"]:
        print_line(
            step=name,
            **{key: getattr(arguments, key) for key in ("variant", "sn_mode", "batch_size")},
            n_dis=settings.n_dis,
            image_size=NETWORKS[settings.network].image_shape(settings.mg)[0],
            precision=keras.config.dtype_policy().name,
            summaries=arguments.summaries and name != "no_summaries",
            seconds_per_iteration=spread(seconds[name]),
            images_per_second=images / medians[name],
            # A process has one peak, so that only the first step's is known.
            peak_rss_bytes=peak if name == "engine" else None,
            gflop_per_iteration=work.flop / 1e9,
            gflop_per_second=work.flop / 1e9 / medians[name],
            convolution_seconds=spread(seconds["convolutions"]),
            share_of_convolution_rate=limit / medians[name],
        )
    if arguments.against:
        pairs = zip(seconds[arguments.against], seconds["engine"], strict=True)
        ratios = spread([theirs / ours for theirs, ours in pairs])
        print_line(**{f"{arguments.against}_over_engine": ratios})


if __name__ == "__main__":
    main()
