"""The input pipeline: what it draws, from where, and for whom."""

import itertools

import numpy as np
import pytest

from common.pixels import scale_pixels
from common.training.batches import BatchPipeline
from tests.training.small import VARIANTS, noise_source, small_settings


def pipeline(name="no_gamma_cnn", source=None, **changes):
    return BatchPipeline(
        source or noise_source(8), small_settings(VARIANTS[name], **changes), root_seed=5
    )


def take(dataset, count):
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def test_pixels_are_scaled_as_the_originals():
    pixels = np.arange(256, dtype=np.uint8)
    expected = pixels.astype(np.float32) / np.float32(255) * 2 - 1
    np.testing.assert_array_equal(scale_pixels(pixels), expected)


def test_any_iteration_can_be_replayed_alone():
    all_batches = take(pipeline(n_dis=2).discriminator_batches(0), 8)
    replayed = take(pipeline(n_dis=2).discriminator_batches(3), 2)
    for ours, theirs in zip(replayed, all_batches[6:], strict=True):
        for a, b in zip(ours[:3], theirs[:3], strict=True):
            np.testing.assert_array_equal(a, b)


def test_replicas_share_out_the_same_global_batch():
    whole = take(pipeline().discriminator_batches(1), 2)
    both = take(pipeline().discriminator_batches(1, replicas=2, local=range(2)), 4)
    second = take(pipeline().discriminator_batches(1, replicas=2, local=range(1, 2)), 2)
    for step in range(2):
        for index in range(3):
            halves = [both[2 * step][index], both[2 * step + 1][index]]
            np.testing.assert_array_equal(np.concatenate(halves), whole[step][index])
            np.testing.assert_array_equal(second[step][index], halves[1])


def test_redrawn_latents_have_the_generators_batch_size_and_are_new():
    resnet = pipeline("no_gamma_resnet", noise_source(32))
    latents = take(resnet.generator_batches(0), 2)
    batches = take(resnet.discriminator_batches(0), 2)
    latents = [batch.latents for batch in latents]
    assert latents[0].shape == (6, 8)
    assert not np.array_equal(latents[0], latents[1])
    assert not np.isin(batches[0].latents, latents[0]).any()


def test_images_are_drawn_with_replacement_from_all():
    source = noise_source(8, count=10)
    batches = take(pipeline(source=source, batch_size=64).discriminator_batches(0), 20)
    table = {source.read(np.array([i])).tobytes(): i for i in range(10)}
    drawn = [
        table[np.rint((image + 1) * 127.5).astype(np.uint8)[None].tobytes()]
        for batch in batches
        for image in batch.images
    ]
    counts = np.bincount(drawn, minlength=10)
    assert counts.min() > 80
    assert counts.max() < 180


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_everything_has_keras_floatx(dtype, request):
    if dtype == "float64":
        request.getfixturevalue("float64")
    batch = take(pipeline().discriminator_batches(0), 1)[0]
    assert {x.dtype.name for x in batch[:3]} == {dtype}
    assert batch.images.shape == (4, 8, 8, 3)
    assert batch.mix.shape == (4, 1, 1, 1)
    assert np.abs(batch.images).max() <= 1
    assert 0 <= batch.mix.min() <= batch.mix.max() < 1
