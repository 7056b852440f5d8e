"""One training iteration, as the paper's algorithm reads (FIDELITY sections 3 and 4).

Every pass is a pass of its own and every gradient is taken by ordinary automatic differentiation,
so that this step is right for any networks. `common.training.fused_step` is its quick form.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

import keras
import tensorflow as tf

from common.configuration.settings import Settings
from common.keras_private import all_layers
from common.layers import BatchNorm, moving_average_advances, spectral_layers
from common.losses import LOSSES, PENALTIES, PenaltyInputs
from common.losses.penalties import slopes
from common.networks.build import Networks, call_network
from common.training.divergence import spectral_norms, sums_of_squares
from common.training.scalars import gamma_scalars, sigma_scalars, slope_scalars
from common.training.step import (
    DiscriminatorBatch,
    GeneratorBatch,
    Optimizers,
    StepResult,
    full_precision,
)

Scalars = dict[str, tf.Tensor]
Gradients = list[tf.Tensor]


class PlainStep:
    """The updates of one iteration, in replica context.

    Args:
        settings: the job's `Settings`.
        networks: its `Networks`.

    Attributes:
        networks: the `Networks`.
        generator, discriminator, average: each of them.
        optimizers: the `Optimizers`.
    """

    name: ClassVar[str] = "plain"

    def __init__(self, settings: Settings, networks: Networks) -> None:
        self.settings = settings
        self.networks = networks
        self.generator, self.discriminator, self.average = networks
        self.optimizers = Optimizers.adam(settings)
        self.optimizers.generator.build(self.generator.trainable_variables)
        self.optimizers.discriminator.build(self.discriminator.trainable_variables)
        self._loss = LOSSES[settings.loss]
        self._penalty = PENALTIES[settings.penalty].function
        self._spectral_layers = {
            "generator": spectral_layers(self.generator),
            "discriminator": spectral_layers(self.discriminator),
        }

    def discriminator_step(self, batch: DiscriminatorBatch) -> StepResult:
        """A discriminator update on a batch of its own; then the stored `u` advance.

        Returns:
            Losses and scores before the update; slopes where they cost nothing, otherwise zeros.
        """
        return self._update_discriminator(batch, self._fake(batch), False)

    def last_steps(
        self,
        batch: DiscriminatorBatch,
        generator_batch: GeneratorBatch | None = None,
        summaries_due: Any = True,
    ) -> StepResult:
        """The last discriminator step of an iteration and its generator step.

        Args:
            batch: of the discriminator step.
            generator_batch: of the generator step; None to take latents and labels of `batch`.
            summaries_due: whether the values will be logged. Slopes, and a discriminator that is
                measured after its update, cost passes, which are left out otherwise: the values are
                then zeros, or those before the update.
        """
        fake = self._fake(batch)
        result = self._update_discriminator(batch, fake, summaries_due)
        if self.settings.summary_after_update:
            result = self._measured_anew(result, batch, fake, summaries_due)
        if generator_batch is None:
            generator_batch = GeneratorBatch(batch.latents, batch.fake_labels)
        return result.joined(self._update_generator(generator_batch))

    def update_average(self) -> None:
        """Advances the generator's moving average, in cross-replica context.

        `average <- decay * average + (1 - decay) * generator` for what is trained. Until
        `ema_start` updates have been made, and of batch norm's own averages always, it is a copy.
        """
        if self.average is None:
            return
        has_begun = self.optimizers.generator.iterations.value > self.settings.ema_start
        for average, variable in zip(self.average.variables, self.generator.variables, strict=True):
            decay = self.settings.ema_decay if variable.trainable else 0.0
            kept = tf.where(has_begun, tf.cast(decay, variable.dtype), 0)
            average.assign(kept * average + (1 - kept) * variable)

    def measure_discriminator(self, batch: DiscriminatorBatch) -> StepResult:
        """The discriminator's summaries on a batch, with nothing updated."""
        with _state_kept(self.generator):
            fake = self._generate(batch.latents, batch.fake_labels)
        return StepResult(self._summary(batch, fake), {})

    # The discriminator's update

    def _fake(self, batch: DiscriminatorBatch) -> tf.Tensor:
        advances = self.settings.batch_norm_in_d_steps
        with contextlib.nullcontext() if advances else _state_kept(self.generator):
            fake = self._generate(batch.latents, batch.fake_labels)
        return tf.cast(fake, batch.images.dtype)

    def _update_discriminator(
        self, batch: DiscriminatorBatch, fake: tf.Tensor, summaries_due: Any
    ) -> StepResult:
        """Returns what is measured before the update, and what tells of the update itself."""
        scalars, gradients = self._discriminator_gradients(batch, fake, summaries_due)
        sigmas = self._sigmas()
        scalars |= sigma_scalars(sigmas) | gamma_scalars(self.discriminator)
        norm, diagnosis = self._diagnosed("discriminator", gradients)
        self._apply("discriminator", gradients)
        return StepResult(scalars | norm, diagnosis | spectral_norms(sigmas))

    def _discriminator_gradients(
        self, batch: DiscriminatorBatch, fake: tf.Tensor, summaries_due: Any
    ) -> tuple[Scalars, Gradients]:
        real, variables = batch.images, self._variables(self.discriminator)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch((real, fake))
            fake_scores = self._score(fake, batch.fake_labels)
            real_scores = self._score(real, batch.labels)
            scalars = self._losses(real_scores, fake_scores)
            if self._penalty:
                scalars |= self._penalized(scalars, self._penalty(self._inputs(batch, fake)))
            loss = self.optimizers.discriminator.scale_loss(scalars["loss/d"])
        gradients = dense_gradients(tape, loss, variables)

        def measured_slopes() -> Scalars:
            by_real, by_fake = tape.gradient(real_scores, real), tape.gradient(fake_scores, fake)
            return slope_scalars(slopes(by_real), slopes(by_fake))

        due = tf.convert_to_tensor(summaries_due)
        return scalars | tf.cond(due, measured_slopes, _no_slopes), gradients

    def _generate(self, latents: tf.Tensor, labels: Any) -> tf.Tensor:
        return call_network(self.generator, latents, labels, training=True)

    def _score(self, images: tf.Tensor, labels: Any) -> tf.Tensor:
        return full_precision(call_network(self.discriminator, images, labels, training=True))

    def _losses(self, real_scores: tf.Tensor, fake_scores: tf.Tensor) -> Scalars:
        real, fake = self._loss.real(real_scores), self._loss.fake(fake_scores)
        return {
            "loss/d/real": real,
            "loss/d/fake": fake,
            "loss/d": real + fake,
            "d/real": tf.reduce_mean(real_scores),
            "d/fake": tf.reduce_mean(fake_scores),
        }

    def _penalized(self, scalars: Scalars, penalty: tf.Tensor) -> Scalars:
        return {
            "loss/d/gp": penalty,
            "loss/d": scalars["loss/d"] + self.settings.d_gp_coe * penalty,
        }

    def _inputs(self, batch: DiscriminatorBatch, fake: tf.Tensor) -> PenaltyInputs:
        return PenaltyInputs(
            self._score,
            self.discriminator,
            batch.images,
            fake,
            batch.mix,
            batch.labels,
            batch.fake_labels,
        )

    # The discriminator's summaries after its update

    def _measured_anew(
        self, before: StepResult, batch: DiscriminatorBatch, fake: tf.Tensor, summaries_due: Any
    ) -> StepResult:
        """The result with the scalars that can be measured again, if summaries are due."""

        def measure() -> Scalars:
            return before.scalars | self._summary(batch, fake)

        due = tf.convert_to_tensor(summaries_due)
        return before._replace(scalars=tf.cond(due, measure, lambda: before.scalars))

    def _summary(self, batch: DiscriminatorBatch, fake: tf.Tensor) -> Scalars:
        with _state_kept(self.discriminator):
            scalars = self._measure(batch, fake)
            if self._penalty:
                scalars |= self._penalized(scalars, self._penalty(self._inputs(batch, fake)))
        return scalars | sigma_scalars(self._sigmas()) | gamma_scalars(self.discriminator)

    def _measure(self, batch: DiscriminatorBatch, fake: tf.Tensor) -> Scalars:
        real = batch.images
        with tf.GradientTape(persistent=True) as tape:
            tape.watch((real, fake))
            fake_scores = self._score(fake, batch.fake_labels)
            real_scores = self._score(real, batch.labels)
        by_real, by_fake = tape.gradient(real_scores, real), tape.gradient(fake_scores, fake)
        losses = self._losses(real_scores, fake_scores)
        return losses | slope_scalars(slopes(by_real), slopes(by_fake))

    def _sigmas(self) -> dict[str, list[tf.Tensor]]:
        return {x.name: x.sigmas() for x in self._spectral_layers["discriminator"]}

    # The generator's update

    def _update_generator(self, batch: GeneratorBatch) -> StepResult:
        with tf.GradientTape() as tape:
            fake = self._generate(batch.latents, batch.labels)
            loss = self._loss.generator(self._score(fake, batch.labels))
            scaled_loss = self.optimizers.generator.scale_loss(loss)
        gradients = dense_gradients(tape, scaled_loss, self._variables(self.generator))
        return self._generator_updated(loss, gradients)

    def _generator_updated(self, loss: tf.Tensor, gradients: Gradients) -> StepResult:
        norm, diagnosis = self._diagnosed("generator", gradients)
        diagnosis |= sums_of_squares(
            "updated weights",
            "discriminator",
            self.discriminator,
            self._variables(self.discriminator),
        )
        self._apply("generator", gradients)
        return StepResult({"loss/g/fake": loss, "loss/g": loss, **norm}, diagnosis)

    # What both updates share

    def _diagnosed(self, network: str, gradients: Gradients) -> tuple[Scalars, Scalars]:
        """The gradients' norm, by tag, and the diagnosis of a network about to be updated.

        Without the gradients under loss scaling, which expects them to overflow.
        """
        model, optimizer = getattr(self, network), getattr(self.optimizers, network)
        sums = sums_of_squares("weights", network, model, self._variables(model))
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            return {}, sums
        by_layer = sums_of_squares("gradients", network, model, gradients)
        norm = tf.sqrt(tf.reduce_sum(tf.stack(list(by_layer.values()))))
        return {f"gradient_norm/{network[0]}": norm}, sums | by_layer

    def _apply(self, network: str, gradients: Gradients) -> None:
        """Updates a network by Adam; then its stored `u` advance."""
        model, optimizer = getattr(self, network), getattr(self.optimizers, network)
        # Keras sums the gradients over the replicas; the update is by their mean.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:
            gradients = [gradient / replicas for gradient in gradients]
        optimizer.apply(gradients, model.trainable_variables)
        for layer in self._spectral_layers[network]:
            layer.advance_u()

    @staticmethod
    def _variables(model: keras.Model) -> list[tf.Variable]:
        return [variable.value for variable in model.trainable_variables]


def _no_slopes() -> Scalars:
    none = tf.zeros([1], keras.config.floatx())
    return slope_scalars(none, none)


def dense_gradients(
    tape: tf.GradientTape, targets: tf.Tensor, sources: list[Any], upstream: Any = None
) -> Gradients:
    """Gradients as tensors, zeros where the targets do not depend on a source.

    An embedding's is zero in the rows of absent labels, which Adam still moves by their momentum.
    """
    zero = tf.UnconnectedGradients.ZERO
    gradients = tape.gradient(targets, sources, upstream, unconnected_gradients=zero)
    return [tf.convert_to_tensor(gradient) for gradient in gradients]


@contextlib.contextmanager
def _state_kept(model: keras.Model) -> Iterator[None]:
    """Leaves everything that training-mode passes change as it was: moving averages, stored `u`."""
    state = changed_by_passes(model)
    with moving_average_advances(0):
        before = [tf.identity(variable.value) for variable in state]
        yield
        for variable, value in zip(state, before, strict=True):
            variable.assign(value)


def changed_by_passes(model: keras.Model) -> list[keras.Variable]:
    """Variables that training-mode passes may change, whatever `moving_average_advances` says."""
    kept_otherwise = [layer for layer in all_layers(model) if type(layer) is BatchNorm]
    kept_otherwise += [x for x in spectral_layers(model) if not x.advances_in_passes]
    exempt = {id(variable) for layer in kept_otherwise for variable in layer.variables}
    return [v for v in model.variables if not v.trainable and id(v) not in exempt]
