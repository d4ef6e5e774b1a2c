"""Batches: the same ones for any number of workers and loader processes."""

from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pytest
import torch

from ssd_dist.config import AugmentationConfig
from ssd_dist.data.cache import open_cache
from ssd_dist.data.dataset import (
    Batches,
    DetectionDataset,
    Loader,
    Sample,
    collate,
    evaluation_keys,
    steps_per_epoch,
    training_batches,
    training_keys,
)
from ssd_dist.data.synthetic import synthetic_split
from ssd_dist.structures import Batch

SIDE = 48


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DetectionDataset:
    split = synthetic_split("train", num_images=23)
    cache = open_cache(split, 64, tmp_path_factory.mktemp("cache"))
    return DetectionDataset(split, cache, SIDE, AugmentationConfig(), seed=5)


def evaluation_batches(dataset: DetectionDataset, rank: int = 0, world_size: int = 1) -> Batches:
    keys = evaluation_keys(dataset, batch_size=4, rank=rank, world_size=world_size)
    return Loader(dataset).batches(keys)


def assert_same(a: Batch, b: Batch) -> None:
    for name in Batch.__slots__:
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def order(batches: list[Batch]) -> list[int]:
    return [index for batch in batches for index in batch.indices.tolist()]


def test_index_gives_the_picture_with_its_relative_boxes(dataset):
    annotation = dataset.split.annotations[2]
    sample = dataset[2]
    assert sample.image.shape == (3, SIDE, SIDE)
    assert sample.image.dtype == torch.uint8
    assert sample.index == 2
    sides = np.array([annotation.width, annotation.height] * 2)
    np.testing.assert_allclose(sample.boxes_xyxy, annotation.boxes_xyxy / sides, rtol=1e-6)
    assert sample.boxes_xyxy.dtype == torch.float32
    assert sample.labels.tolist() == annotation.labels.tolist()


def test_sample_depends_on_seed_epoch_and_index_alone(dataset):
    first = dataset[(3, 7)]
    _ = dataset[(3, 8)]
    assert torch.equal(dataset[(3, 7)].image, first.image)
    assert not torch.equal(dataset[(4, 7)].image, first.image)
    reseeded = DetectionDataset(dataset.split, dataset.cache, SIDE, dataset.augmentation, seed=6)
    assert not torch.equal(reseeded[(3, 7)].image, first.image)


def test_without_augmentation_an_epoch_changes_nothing(dataset):
    plain = DetectionDataset(dataset.split, dataset.cache, SIDE, None, seed=5)
    assert torch.equal(plain[(3, 7)].image, plain[7].image)
    assert torch.equal(plain[7].image, dataset[7].image)


def test_collate_pads_to_eights():
    def sample(count: int, index: int) -> Sample:
        boxes_xyxy = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).repeat(count, 1)
        image = torch.full((3, 4, 4), index, dtype=torch.uint8)
        ones = torch.ones(count, dtype=torch.int64)
        return Sample(image, boxes_xyxy, ones, torch.ones(count) > 0, index)

    for counts, padded in [((0, 0), 8), ((1, 8), 8), ((9, 2, 0), 16)]:
        batch = collate([sample(count, index) for index, count in enumerate(counts)])
        num_images = len(counts)
        assert batch.images.shape == (num_images, 3, 4, 4)
        assert batch.images.dtype == torch.uint8
        assert batch.boxes_xyxy.shape == (num_images, padded, 4)
        assert batch.boxes_xyxy.dtype == torch.float32
        assert batch.labels.shape == batch.difficult.shape == (num_images, padded)
        assert batch.labels.dtype == torch.int64
        assert batch.difficult.dtype == torch.bool
        assert batch.indices.tolist() == list(range(num_images))
        for row, count in enumerate(counts):
            assert (batch.labels[row] > 0).tolist() == [m < count for m in range(padded)]
            assert batch.difficult[row].sum() == count
            assert (batch.boxes_xyxy[row, count:] == 0).all()
            assert (batch.boxes_xyxy[row, :count] == torch.tensor([0.1, 0.2, 0.3, 0.4])).all()


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 7])
def test_workers_share_what_one_would_have(dataset, world_size):
    alone = list(training_batches(dataset, epoch=2, global_batch_size=7, rank=0, world_size=1))
    shares = [
        list(
            training_batches(
                dataset, epoch=2, global_batch_size=7, rank=rank, world_size=world_size
            )
        )
        for rank in range(world_size)
    ]
    assert all(len(share) == len(alone) == 3 for share in shares)
    for step, whole in enumerate(alone):
        parts = [share[step] for share in shares]
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.equal(torch.cat([part.boxes_xyxy for part in parts]), whole.boxes_xyxy)
        assert torch.equal(torch.cat([part.indices for part in parts]), whole.indices)
        sizes = [len(part.indices) for part in parts]
        assert max(sizes) - min(sizes) <= 1


def test_epoch_is_a_permutation_of_its_own(dataset):
    def epoch(number: int) -> list[int]:
        return order(
            list(
                training_batches(dataset, epoch=number, global_batch_size=23, rank=0, world_size=1)
            )
        )

    assert sorted(epoch(0)) == list(range(23))
    assert epoch(0) != epoch(1)
    assert epoch(0) == epoch(0)


def test_last_incomplete_global_batch_is_left_out(dataset):
    batches = training_batches(dataset, epoch=0, global_batch_size=10, rank=0, world_size=1)
    assert len(batches) == steps_per_epoch(23, 10) == 2
    assert len(set(order(list(batches)))) == 20


def test_loader_processes_change_nothing(dataset):
    arguments = {"epoch": 1, "global_batch_size": 8, "rank": 0, "world_size": 1}
    inline = list(training_batches(dataset, **arguments))
    loaded = list(training_batches(dataset, **arguments, num_processes=2))
    for a, b in zip(inline, loaded, strict=True):
        assert_same(a, b)


def test_loader_processes_serve_every_epoch(dataset):
    share = {"global_batch_size": 4, "rank": 0, "world_size": 1}
    whole = [training_keys(dataset, epoch=epoch, **share) for epoch in range(3)]
    resumed = training_keys(dataset, epoch=3, first_step=2, **share)
    evaluated = evaluation_keys(dataset, batch_size=4, rank=0, world_size=1)
    served = []
    with Loader(dataset, 2) as loader:
        for keys in (*whole, evaluated, resumed, [], whole[0]):
            batches = loader.batches(keys)
            assert len(batches) == len(keys)
            for a, b in zip(batches, Loader(dataset).batches(keys), strict=True):
                assert_same(a, b)
            served.append({process.pid for process in multiprocessing.active_children()})
        next(iter(loader.batches(whole[1])))  # an epoch that is broken off
    assert len(served[0]) == 2
    assert all(processes == served[0] for processes in served)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("world_size", [1, 2, 4, 30])
def test_every_picture_is_evaluated_once(dataset, world_size):
    batches = []
    for rank in range(world_size):
        share = evaluation_batches(dataset, rank, world_size)
        of_worker = list(share)
        assert len(share) == len(of_worker) == -(-len(order(of_worker)) // 4)
        batches += of_worker
    assert sorted(order(batches)) == list(range(23))
    assert max(len(batch.indices) for batch in batches) <= 4


def test_evaluated_pictures_are_only_resized(dataset):
    (batch, *_) = evaluation_batches(dataset)
    for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
        assert torch.equal(image, dataset[index].image)


def test_dataset_goes_to_other_processes(dataset):
    pickled = pickle.dumps(dataset)
    assert torch.equal(pickle.loads(pickled)[(0, 1)].image, dataset[(0, 1)].image)


def test_mistakes_are_told(dataset):
    with pytest.raises(ValueError, match="23 pictures, fewer than the global batch of 24"):
        training_batches(dataset, epoch=0, global_batch_size=24, rank=0, world_size=1)
    with pytest.raises(ValueError, match="5 workers can't share a global batch of 4"):
        training_batches(dataset, epoch=0, global_batch_size=4, rank=0, world_size=5)
    with pytest.raises(ValueError, match="23 pictures, but split 'train' has 3"):
        DetectionDataset(synthetic_split("train", num_images=3), dataset.cache, SIDE, None, 0)
