"""The input pipeline: what it draws, from where, and for whom."""

import itertools

import numpy as np
import pytest

from common.data import ArraySource
from common.errors import UserError
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


# Shuffled epochs


def numbered_source(count, labels=None):
    """Images of which each pixel is the image's own number."""
    pixels = np.empty((count, 8, 8, 3), np.uint8)
    pixels[...] = np.arange(count)[:, None, None, None]
    return ArraySource("numbered", "array", pixels, {}, labels=labels, classes=labels and 7)


def numbers_of(images):
    return np.rint((images[:, 0, 0, 0] + 1) * 127.5).astype(int).tolist()


def shuffled(count, size, n_dis=2, **changes):
    settings = {"sampling": "shuffled", "batch_size": size, "n_dis": n_dis, **changes}
    return pipeline(source=numbered_source(count), **settings)


@pytest.mark.parametrize(
    ("count", "size", "last_batch", "sizes"),
    [
        (20, 6, "keep", [6, 6, 6, 2]),
        (20, 6, "drop", [6, 6, 6]),
        (12, 6, "keep", [6, 6]),
        (5, 8, "keep", [5]),
    ],
)
def test_every_epoch_has_each_image_once(count, size, last_batch, sizes):
    batches = take(shuffled(count, size, last_batch=last_batch).discriminator_batches(0), 60)
    epochs = [batches[i : i + len(sizes)] for i in range(0, 60, len(sizes))]
    orders = []
    for epoch in filter(lambda e: len(e) == len(sizes), epochs):
        assert [len(batch.images) for batch in epoch] == sizes
        assert [len(batch.latents) for batch in epoch] == sizes
        assert [len(batch.mix) for batch in epoch] == sizes
        order = [number for batch in epoch for number in numbers_of(batch.images)]
        assert len(set(order)) == sum(sizes)
        assert set(order) <= set(range(count))
        orders.append(tuple(order))
    assert len(set(orders)) > 0.7 * len(orders)  # of 120 orders of five images, 48 of 60
    assert any(order != tuple(sorted(order)) for order in orders)


def test_a_shuffled_iteration_can_be_replayed_alone():
    """Epochs go on across iterations: seven iterations of two steps, four batches an epoch."""
    whole = take(shuffled(20, 6).discriminator_batches(0), 14)
    replayed = take(shuffled(20, 6).discriminator_batches(5), 4)
    for ours, theirs in zip(replayed, whole[10:], strict=True):
        for a, b in zip(ours[:3], theirs[:3], strict=True):
            np.testing.assert_array_equal(a, b)


def test_places_of_a_permutation_are_far_apart():
    """Neighbours in one epoch are not neighbours in the next: a mean distance near a third."""
    batches = take(shuffled(240, 240, n_dis=1).discriminator_batches(0), 20)
    orders = [numbers_of(batch.images) for batch in batches]
    places = [np.argsort(order) for order in orders]
    distances = [np.abs(np.diff(place)).mean() / 240 for place in places]
    assert 0.28 < np.mean(distances) < 0.39
    correlations = np.corrcoef(places) - np.eye(20)
    assert np.abs(correlations).max() < 0.3


def test_replicas_share_a_smaller_last_batch():
    whole = take(shuffled(20, 6).discriminator_batches(0), 4)
    both = take(shuffled(20, 6).discriminator_batches(0, replicas=2, local=range(2)), 8)
    for step in range(4):
        halves = [numbers_of(both[2 * step + i].images) for i in range(2)]
        assert halves[0] + halves[1] == numbers_of(whole[step].images)


# Flips, latents, labels


def test_about_half_of_the_images_are_mirrored_and_those_alone():
    source = noise_source(8, count=30)
    changes = {"batch_size": 64, "n_dis": 1}
    plain = take(pipeline(source=source, **changes).discriminator_batches(0), 8)
    flipped = take(pipeline(source=source, flip=True, **changes).discriminator_batches(0), 8)
    mirrored = []
    for before, after in zip(plain, flipped, strict=True):
        for a, b in zip(before.images, after.images, strict=True):
            is_mirrored = not np.array_equal(a, b)
            np.testing.assert_array_equal(b, a[:, ::-1] if is_mirrored else a)
            mirrored.append(is_mirrored)
        np.testing.assert_array_equal(before.latents, after.latents)
    assert 0.42 < np.mean(mirrored) < 0.58


@pytest.mark.parametrize(("name", "low", "high"), [("uniform", -1, 1), ("uniform_positive", 0, 1)])
def test_uniform_latents(name, low, high):
    batch = take(pipeline(latents=name, batch_size=200).discriminator_batches(0), 1)[0]
    assert low <= batch.latents.min() < low + 0.05 * (high - low)
    assert high - 0.05 * (high - low) < batch.latents.max() < high
    assert abs(batch.latents.mean() - (low + high) / 2) < 0.05 * (high - low)


LABELLED = {"network": "tests.examples.own_network:mlp", "sn_mode": "none"}


def labelled(count=20, **changes):
    labels = [number % 7 for number in range(count)]
    return pipeline(source=numbered_source(count, labels), **LABELLED, **changes)


def test_labels_are_those_of_the_images_and_generated_ones_are_uniform():
    batches = take(labelled(batch_size=100, n_dis=1).discriminator_batches(0), 10)
    for batch in batches:
        assert batch.labels.tolist() == [number % 7 for number in numbers_of(batch.images)]
    fake = np.concatenate([batch.fake_labels for batch in batches])
    counts = np.bincount(fake, minlength=7)
    assert len(counts) == 7
    assert counts.min() > 100
    assert len({tuple(batch.fake_labels) for batch in batches}) == 10


def test_a_generators_own_batches_have_labels_of_their_own():
    changes = {"redraw_latents": True, "d_batch_size": 8, "g_batch_size": 50, "num_gpus": 1}
    source = numbered_source(20, [number % 7 for number in range(20)])
    settings = small_settings(VARIANTS["no_gamma_resnet"], **{**LABELLED, **changes})
    one, two = take(BatchPipeline(source, settings, 5).generator_batches(0), 2)
    assert one.labels.shape == (50,)
    assert set(one.labels) == set(range(7))
    assert one.labels.tolist() != two.labels.tolist()


def test_networks_without_labels_get_none():
    batch = next(iter(pipeline(source=numbered_source(20, [0] * 20)).discriminator_batches(0)))
    assert batch.labels is None
    assert batch.fake_labels is None


def test_a_network_with_labels_refuses_images_without():
    with pytest.raises(UserError, match="numbered has no labels"):
        pipeline(source=numbered_source(20), **LABELLED)
