"""A plain TensorFlow 2 training step: the oracle of the engine's tests and benchmarks.

It follows the specification's prose step by step: separate passes over real and generated images,
the generator run again for its own step, slopes by passes of their own, everything by ordinary
gradients. Of the project it uses the networks alone.
"""

import tensorflow as tf

from common.layers import moving_average_advances, spectral_layers


class StraightforwardStep:
    """One iteration of a variant.

    Args:
        variant: the `Variant`.
        generator, discriminator: Keras models.
        settings: object with the learning rates and betas, and `d_gp_coe`.
    """

    def __init__(self, variant, generator, discriminator, settings):
        self.variant = variant
        self.generator = generator
        self.discriminator = discriminator
        self.settings = settings
        self._g_adam = _Adam(generator, settings.g_lr, settings.g_beta1, settings.g_beta2)
        self._d_adam = _Adam(discriminator, settings.d_lr, settings.d_beta1, settings.d_beta2)

    def generate(self, latents, *, advance):
        with moving_average_advances(int(advance)):
            return self.generator(latents, training=True)

    def slopes(self, images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            scores = self.discriminator(images)
        gradients = tape.gradient(scores, images)
        return tf.sqrt(tf.reduce_sum(gradients**2, axis=[1, 2, 3]) + 1e-8)

    def discriminator_loss(self, real, fake, mix):
        on_real, on_fake = self.discriminator(real), self.discriminator(fake)
        if self.variant.loss == "hinge":
            return tf.reduce_mean(tf.maximum(1 - on_real, 0)) + tf.reduce_mean(
                tf.maximum(1 + on_fake, 0)
            )
        between = self.slopes(real + mix * (fake - real))
        penalty = tf.reduce_mean((between - 1) ** 2)
        wasserstein = tf.reduce_mean(on_fake) - tf.reduce_mean(on_real)
        return wasserstein + self.settings.d_gp_coe * penalty

    def discriminator_step(self, batch, *, measure=True):
        fake = self.generate(batch.latents, advance=self.variant.batch_norm_in_d_steps)
        variables = [v.value for v in self.discriminator.trainable_variables]
        with tf.GradientTape() as tape:
            loss = self.discriminator_loss(batch.images, fake, batch.mix)
        gradients = tape.gradient(loss, variables)
        measured = {"loss/d": loss}
        if measure:
            measured["d/mean_real_slopes"] = tf.reduce_mean(self.slopes(batch.images))
            measured["d/max_fake_slopes"] = tf.reduce_max(self.slopes(fake))
        self._d_adam.apply(gradients)
        for layer in spectral_layers(self.discriminator):
            layer.advance_u()
        return measured

    def generator_step(self, latents):
        variables = [v.value for v in self.generator.trainable_variables]
        with tf.GradientTape() as tape:
            fake = self.generate(latents, advance=True)
            loss = -tf.reduce_mean(self.discriminator(fake))
        self._g_adam.apply(tape.gradient(loss, variables))
        return loss


class _Adam:
    """Kingma and Ba's algorithm 1 in the form of the end of its section 2, as TF1 has it."""

    def __init__(self, model, rate, beta1, beta2):
        self._variables = [v.value for v in model.trainable_variables]
        self._m = [tf.Variable(tf.zeros_like(v)) for v in self._variables]
        self._v = [tf.Variable(tf.zeros_like(v)) for v in self._variables]
        self._t = tf.Variable(0.0, dtype=self._variables[0].dtype)
        self._rate, self._beta1, self._beta2 = rate, beta1, beta2

    def apply(self, gradients):
        self._t.assign_add(1.0)
        dtype = self._t.dtype
        one, beta1, beta2 = (tf.constant(x, dtype) for x in (1.0, self._beta1, self._beta2))
        rate = self._rate * tf.sqrt(one - beta2**self._t) / (one - beta1**self._t)
        for x, m, v, g in zip(self._variables, self._m, self._v, gradients, strict=True):
            m.assign(beta1 * m + (one - beta1) * g)
            v.assign(beta2 * v + (one - beta2) * g * g)
            x.assign_sub(rate * m / (tf.sqrt(v) + 1e-8))
