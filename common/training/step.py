"""One training iteration, compiled: the paper's algorithm (specification, sections 3 and 4)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from common.layers import moving_average_advances, spectral_layers
from common.layers.image_weights import ImageWeights
from common.training.adam import Adam
from common.training.divergence import spectral_norms, sums_of_squares
from common.training.losses import LOSSES, generator_loss, gradient_penalty, slopes
from common.training.scalars import gamma_scalars, sigma_scalars, slope_scalars
from common.variant import Variant


class DiscriminatorBatch(NamedTuple):
    """What one discriminator step needs, for one replica.

    Attributes:
        images: real images `[n, h, w, 3]` in [-1, 1].
        latents: `[n, latent_dim]`, standard normal.
        mix: `[n, 1, 1, 1]` in [0, 1), for the gradient penalty; unused without one.
    """

    images: Any
    latents: Any
    mix: Any


@dataclass(frozen=True)
class Optimizers:
    """Adam for each network; its learning rate is kept in Keras' floatx."""

    generator: keras.optimizers.Optimizer
    discriminator: keras.optimizers.Optimizer

    @classmethod
    def adam(cls, settings):
        """From `g_lr`, `g_beta1`, `g_beta2`, `d_lr`, `d_beta1` and `d_beta2` of the settings.

        Where Keras' default dtype policy computes in float16, losses are scaled.
        """
        optimizers = [
            Adam(settings.g_lr, settings.g_beta1, settings.g_beta2, name="generator_adam"),
            Adam(settings.d_lr, settings.d_beta1, settings.d_beta2, name="discriminator_adam"),
        ]
        if keras.config.dtype_policy().compute_dtype == "float16":
            optimizers = [keras.optimizers.LossScaleOptimizer(x, name=x.name) for x in optimizers]
        return cls(*optimizers)


class TrainingStep:
    """The updates of one iteration, in replica context.

    Args:
        variant: the `Variant`.
        generator, discriminator: Keras models.
        optimizers: an `Optimizers`.
        gp_coefficient: factor of the gradient penalty, where the variant has one.
    """

    def __init__(self, variant: Variant, generator, discriminator, optimizers, gp_coefficient=None):
        self.loss = LOSSES[variant.loss]
        if self.loss.gradient_penalty and gp_coefficient is None:
            raise ValueError(f"{variant.name} has a gradient penalty: gp_coefficient is missing.")
        self.variant = variant
        self.generator = generator
        self.discriminator = discriminator
        self.optimizers = optimizers
        self.gp_coefficient = gp_coefficient
        self._spectral_layers = spectral_layers(discriminator)
        optimizers.generator.build(generator.trainable_variables)
        optimizers.discriminator.build(discriminator.trainable_variables)

    def discriminator_step(self, batch: DiscriminatorBatch):
        """A discriminator update on a batch of its own; then the stored `u` advance.

        Returns:
            `{tag: scalar}`: losses, scores and slopes before the update.
        """
        measured, diagnosed = self._update_discriminator(batch, self._fake(batch))
        return measured | diagnosed

    def _fake(self, batch):
        with moving_average_advances(int(self.variant.batch_norm_in_d_steps)):
            return self.generator(batch.latents, training=True)

    def last_steps(self, batch: DiscriminatorBatch, generator_latents=None, summaries_due=True):
        """The last discriminator step of an iteration and its generator step.

        Args:
            batch: of the discriminator step.
            generator_latents: `[m, latent_dim]`, where the variant redraws them; otherwise None,
                and the generator's pass over `batch.latents` serves both steps.
            summaries_due: whether the values will be logged. Where the variant measures the
                discriminator after its update, this costs a pass, which is left out otherwise: the
                values are then those before the update.

        Returns:
            `{tag: scalar}`: what the iteration logs.
        """
        if self.variant.redraw_latents:
            fake = self._fake(batch)
            measured, diagnosed = self._update_discriminator(batch, fake)
            if self.variant.summary_after_update:
                before = measured
                measured = tf.cond(
                    tf.convert_to_tensor(summaries_due),
                    lambda: self._measure(batch.images, fake),
                    lambda: before,
                )
            return measured | diagnosed | self._update_generator(*self._generate(generator_latents))
        advances = 1 + int(self.variant.batch_norm_in_d_steps)
        fake, tape = self._generate(batch.latents, advances)
        measured, diagnosed = self._update_discriminator(batch, tf.stop_gradient(fake))
        return measured | diagnosed | self._update_generator(fake, tape)

    def _generate(self, latents, advances=1):
        """A recorded training-mode pass that advances the moving averages `advances` times."""
        with tf.GradientTape() as tape, moving_average_advances(advances):
            fake = self.generator(latents, training=True)
        return fake, tape

    def _update_discriminator(self, batch, fake):
        """Returns what is measured before the update, and what tells of the update itself."""
        scalars, gradients = self._adversarial_gradients(batch.images, fake)
        if self.loss.gradient_penalty:
            penalty, penalty_gradients = self._penalty_gradients(batch, fake)
            scalars["loss/d/gp"] = penalty
            scalars["loss/d"] += self.gp_coefficient * penalty
            gradients = [
                g if p is None else g + self.gp_coefficient * p
                for g, p in zip(gradients, penalty_gradients, strict=True)
            ]
        sigmas = self._sigmas()
        scalars |= sigma_scalars(sigmas) | gamma_scalars(self.discriminator)
        diagnosed = self._diagnosed("discriminator", gradients) | spectral_norms(sigmas)
        self._apply(self.optimizers.discriminator, gradients, self.discriminator)
        for layer in self._spectral_layers:
            layer.advance_u()
        return scalars, diagnosed

    def _update_generator(self, fake, tape):
        with tf.GradientTape() as discriminator_tape:
            discriminator_tape.watch(fake)
            loss = generator_loss(_full_precision(self.discriminator(fake, training=True)))
            scaled_loss = self.optimizers.generator.scale_loss(loss)
        by_images = discriminator_tape.gradient(scaled_loss, fake)
        gradients = tape.gradient(fake, self._variables(self.generator), by_images)
        diagnosed = self._diagnosed("generator", gradients) | sums_of_squares(
            "updated weights",
            "discriminator",
            self.discriminator,
            self._variables(self.discriminator),
        )
        self._apply(self.optimizers.generator, gradients, self.generator)
        return {"loss/g/fake": loss, "loss/g": loss, **diagnosed}

    def _adversarial_gradients(self, real, fake):
        """One pass over real and generated images together: what it measures, and gradients."""
        images = tf.concat([real, tf.cast(fake, real.dtype)], axis=0)
        with ImageWeights() as weights, tf.GradientTape() as tape:
            tape.watch(images)
            scores = _full_precision(self.discriminator(images, training=True))
            scalars, by_scores = self._loss_by_scores(scores)
            # Under loss scaling the seeds of the chain stay 1; the sums over images are scaled.
            weights.set(tf.reshape(self.optimizers.discriminator.scale_loss(by_scores), [-1]))
            by_images, by_variables = tape.gradient(
                scores, (images, self._variables(self.discriminator))
            )
        return scalars | slope_scalars(*tf.split(slopes(by_images), 2)), by_variables

    def _loss_by_scores(self, scores):
        loss = self.loss
        with tf.GradientTape() as tape:
            tape.watch(scores)
            real, fake = tf.split(scores, 2)
            losses = {"loss/d/real": loss.real(real), "loss/d/fake": loss.fake(fake)}
            losses["loss/d"] = losses["loss/d/real"] + losses["loss/d/fake"]
        scalars = {**losses, "d/real": tf.reduce_mean(real), "d/fake": tf.reduce_mean(fake)}
        return scalars, tape.gradient(losses["loss/d"], scores)

    def _penalty_gradients(self, batch, fake):
        with tf.GradientTape() as tape:
            penalty = gradient_penalty(self.discriminator, batch.images, fake, batch.mix)
            scaled_penalty = self.optimizers.discriminator.scale_loss(penalty)
        return penalty, tape.gradient(scaled_penalty, self._variables(self.discriminator))

    def measure_discriminator(self, batch: DiscriminatorBatch):
        """The discriminator's summaries on a batch, with nothing updated."""
        with moving_average_advances(0):
            return self._measure(batch.images, self.generator(batch.latents, training=True))

    def _measure(self, real, fake):
        images = tf.concat([real, tf.cast(fake, real.dtype)], axis=0)
        with tf.GradientTape() as tape:
            tape.watch(images)
            scores = _full_precision(self.discriminator(images, training=True))
        scalars, _ = self._loss_by_scores(scores)
        scalars |= slope_scalars(*tf.split(slopes(tape.gradient(scores, images)), 2))
        return scalars | sigma_scalars(self._sigmas()) | gamma_scalars(self.discriminator)

    def _sigmas(self):
        return {layer.name: layer.sigmas() for layer in self._spectral_layers}

    def _diagnosed(self, network, gradients):
        """`{tag: scalar}` of a network about to be updated: see `common.training.divergence`.

        Without the gradients under loss scaling, which expects them to overflow.
        """
        model, optimizer = getattr(self, network), getattr(self.optimizers, network)
        sums = sums_of_squares("weights", network, model, self._variables(model))
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            return sums
        by_layer = sums_of_squares("gradients", network, model, gradients)
        norm = tf.sqrt(tf.reduce_sum(tf.stack(list(by_layer.values()))))
        return {f"gradient_norm/{network[0]}": norm, **sums, **by_layer}

    def _apply(self, optimizer, gradients, model):
        # Keras sums the gradients over the replicas; the update is by their mean.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:
            gradients = [gradient / replicas for gradient in gradients]
        optimizer.apply(gradients, model.trainable_variables)

    @staticmethod
    def _variables(model):
        return [variable.value for variable in model.trainable_variables]


def _full_precision(scores):
    """Scores in the variables' precision, so that losses are computed in it."""
    return tf.cast(scores, keras.config.dtype_policy().variable_dtype)
