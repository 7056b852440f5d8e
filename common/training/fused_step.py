"""The plain step's quick form, for networks of which it is known to compute the same.

One pass over real and generated images together gives scores, slopes and the loss's gradients
(`common.layers.image_weights`). Where the generator's step reuses the latents of the
discriminator's, one pass of the generator serves both.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import tensorflow as tf

from common.configuration.settings import Settings
from common.layers import (
    layer_that_couples_images,
    layer_that_tells_passes_apart,
    moving_average_advances,
    spectral_layers,
)
from common.layers.image_weights import ImageWeights
from common.losses import PenaltyInputs
from common.losses.penalties import slopes
from common.networks.build import Networks
from common.training.plain_step import (
    Gradients,
    PlainStep,
    Scalars,
    changed_by_passes,
    dense_gradients,
)
from common.training.scalars import slope_scalars
from common.training.step import (
    DiscriminatorBatch,
    GeneratorBatch,
    StepResult,
)


def why_not_fused(settings: Settings, networks: Networks) -> str | None:
    """Says why the fused step would be wrong for some networks, or None if it is right."""
    for model in (networks.generator, networks.discriminator):
        for layer in spectral_layers(model):
            if layer.advances_in_passes:
                return f"{model.name} layer {layer.name} advances u in every pass"
    if reason := layer_that_couples_images(networks.discriminator):
        return f"discriminator {reason}"
    if state := changed_by_passes(networks.discriminator):
        return f"discriminator variable {state[0].path} may count passes"
    if settings.redraw_latents and settings.batch_norm_in_d_steps:
        return None  # every pass of the generator is one of its own, and counts
    reason = layer_that_tells_passes_apart(networks.generator)
    return reason and f"generator {reason}"


class FusedStep(PlainStep):
    """The updates of one iteration; arguments and attributes as of `PlainStep`."""

    name: ClassVar[str] = "fused"

    def last_steps(
        self,
        batch: DiscriminatorBatch,
        generator_batch: GeneratorBatch | None = None,
        summaries_due: Any = True,
    ) -> StepResult:
        """See `PlainStep.last_steps`."""
        if generator_batch is not None or self.settings.summary_after_update:
            return super().last_steps(batch, generator_batch, summaries_due)
        latents = GeneratorBatch(batch.latents, batch.fake_labels)
        fake, tape = self._recorded(latents, 1 + int(self.settings.batch_norm_in_d_steps))
        updated = self._update_discriminator(batch, tf.stop_gradient(fake), summaries_due)
        return updated.joined(self._update_generator_by(fake, tape, batch.fake_labels))

    def _fake(self, batch: DiscriminatorBatch) -> tf.Tensor:
        with moving_average_advances(int(self.settings.batch_norm_in_d_steps)):
            return self._generate(batch.latents, batch.fake_labels)

    def _recorded(
        self, batch: GeneratorBatch, advances: int = 1
    ) -> tuple[tf.Tensor, tf.GradientTape]:
        """A recorded training-mode pass that advances the moving averages `advances` times."""
        with tf.GradientTape() as tape, moving_average_advances(advances):
            fake = self._generate(batch.latents, batch.labels)
        return fake, tape

    def _update_generator(self, batch: GeneratorBatch) -> StepResult:
        return self._update_generator_by(*self._recorded(batch), batch.labels)

    def _update_generator_by(
        self, fake: tf.Tensor, tape: tf.GradientTape, labels: Any
    ) -> StepResult:
        with tf.GradientTape() as discriminator_tape:
            discriminator_tape.watch(fake)
            loss = self._loss.generator(self._score(fake, labels))
            scaled_loss = self.optimizers.generator.scale_loss(loss)
        (by_images,) = dense_gradients(discriminator_tape, scaled_loss, [fake])
        gradients = dense_gradients(tape, fake, self._variables(self.generator), by_images)
        return self._generator_updated(loss, gradients)

    def _discriminator_gradients(
        self, batch: DiscriminatorBatch, fake: tf.Tensor, summaries_due: Any
    ) -> tuple[Scalars, Gradients]:
        del summaries_due  # the slopes come with the gradients
        scalars, gradients = self._adversarial_gradients(batch, fake)
        if self._penalty:
            penalty, penalty_gradients = self._penalty_gradients(
                self._penalty, self._inputs(batch, fake)
            )
            scalars |= self._penalized(scalars, penalty)
            gradients = [
                g if p is None else g + self.settings.d_gp_coe * tf.convert_to_tensor(p)
                for g, p in zip(gradients, penalty_gradients, strict=True)
            ]
        return scalars, gradients

    def _adversarial_gradients(
        self, batch: DiscriminatorBatch, fake: tf.Tensor
    ) -> tuple[Scalars, Gradients]:
        """One pass over real and generated images together: what it measures, and gradients."""
        images, labels = _joined(batch, fake)
        variables = self._variables(self.discriminator)
        with ImageWeights() as weights, tf.GradientTape() as tape:
            tape.watch(images)
            scores = self._score(images, labels)
            scalars, by_scores = self._loss_by_scores(scores)
            # Under loss scaling the seeds of the chain stay 1; the sums over images are scaled.
            weights.set(tf.reshape(self.optimizers.discriminator.scale_loss(by_scores), [-1]))
            by_images, *by_variables = dense_gradients(tape, scores, [images, *variables])
        return scalars | slope_scalars(*tf.split(slopes(by_images), 2)), by_variables

    def _loss_by_scores(self, scores: tf.Tensor) -> tuple[Scalars, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(scores)
            scalars = self._losses(*tf.split(scores, 2))
        (by_scores,) = dense_gradients(tape, scalars["loss/d"], [scores])
        return scalars, by_scores

    def _penalty_gradients(
        self, function: Callable[[PenaltyInputs], tf.Tensor], inputs: PenaltyInputs
    ) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
        with tf.GradientTape() as tape:
            penalty = function(inputs)
            scaled_penalty = self.optimizers.discriminator.scale_loss(penalty)
        return penalty, tape.gradient(scaled_penalty, self._variables(self.discriminator))

    def _measure(self, batch: DiscriminatorBatch, fake: tf.Tensor) -> Scalars:
        images, labels = _joined(batch, fake)
        with tf.GradientTape() as tape:
            tape.watch(images)
            scores = self._score(images, labels)
        by_images = tf.split(slopes(tape.gradient(scores, images)), 2)
        return self._losses(*tf.split(scores, 2)) | slope_scalars(*by_images)


def _joined(batch: DiscriminatorBatch, fake: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """Real and generated images `[2n, ...]` with their labels `[2n]`, or None for none."""
    images = tf.concat([batch.images, tf.cast(fake, batch.images.dtype)], axis=0)
    if batch.labels is None:
        return images, None
    return images, tf.concat([batch.labels, batch.fake_labels], axis=0)
