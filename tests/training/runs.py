"""Whole small runs in a folder, and what they left there."""

import dataclasses
import itertools

import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.metrics import PROTOCOLS
from common.metrics.evaluation import Evaluator
from common.metrics.feature_network import FeatureNetwork
from common.networks import NETWORKS
from common.results.run_folder import RunFolder
from common.training.batches import BatchPipeline
from common.training.sampling import Sampler
from common.training.trainer import Trainer
from tests.training.small import RUNS, small_settings, small_step, source_for

SEED = 11


class MeanColours(FeatureNetwork):
    """Stands in for a feature network: mean colours as features, cheap and deterministic."""

    name = "colours"
    column_prefix = "colours_"
    input_size = 8
    num_features = 3
    num_classes = 3

    def __init__(self):
        super().__init__("0", {})

    def embed(self, images):
        features = tf.reduce_mean(images, axis=[1, 2])
        return features, 10 * features


def train(
    folder,
    name="no_gamma_cnn",
    stop_after=None,
    evaluate=True,
    *,
    network=None,
    source=None,
    strict_metrics=False,
    stop_requested=lambda: False,
    **changes,
):
    """Trains a small job in `folder`, or goes on; stops after `stop_after` chunks."""
    variant, own = RUNS[name]
    settings = small_settings(variant, **{**own, **changes})
    step = small_step(settings, SEED)
    source = source or source_for(settings)
    run = RunFolder(folder)
    run.path.mkdir(exist_ok=True)
    run.start(settings, {"data": source.record}, {})
    evaluator = None
    if evaluate:
        protocol = dataclasses.replace(
            PROTOCOLS["bsn"],
            is_samples=settings.is_samples,
            fid_samples=settings.fid_samples,
            real_images=settings.fid_real,
        )
        evaluator = Evaluator(
            network or MeanColours(),
            protocol,
            reference=source,
            seed=SEED,
            is_cached=True,
            cache_dir=folder.parent / "cache",
        )
    trainer = Trainer(
        settings,
        run,
        strategy=tf.distribute.get_strategy(),
        step=step,
        pipeline=BatchPipeline(source, settings, SEED),
        sampler=Sampler(
            tf.distribute.get_strategy(),
            step.networks.sampled,
            settings,
            SEED,
            source.classes if NETWORKS[settings.network].labelled else None,
        ),
        evaluator=evaluator,
        strict_metrics=strict_metrics,
    )
    chunks, measuring = itertools.count(1), _measuring(evaluator)
    trainer.train(lambda: stop_requested() or (not measuring and next(chunks) == stop_after))
    run.finish()
    return step


def _measuring(evaluator):
    """A list that is not empty while the evaluator is at work."""
    measuring = []
    if evaluator:
        evaluate = evaluator.evaluate

        def noted(generate):
            measuring.append(generate)
            try:
                return evaluate(generate)
            finally:
                measuring.clear()

        evaluator.evaluate = noted
    return measuring


def scalars_of(folder):
    events = EventAccumulator(str(folder / "checkpoint"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if not tag.startswith("memory/")
    }
