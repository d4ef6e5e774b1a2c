"""Samples, and the batches of an epoch: a function of the seed and the epoch alone.

Which pictures make up step t, and how each is varied, depends on neither the number of workers nor
the number of loader processes: a sample draws from its own generator, seeded by (seed, epoch,
index), and every worker knows the same permutation and takes its share of each global batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from ssd_dist.config import AugmentationConfig
from ssd_dist.data.ahead import BatchesAhead
from ssd_dist.data.cache import ImageCache
from ssd_dist.data.transforms import augment, resize_only
from ssd_dist.structures import Batch, Split

Key = int | tuple[int, int]
Keys = list[Key]
"""Of a batch's samples."""
_BOXES_MULTIPLE = 8
_BATCHES_AHEAD = 2
"""Who was quicker than the others in one step may need what it has made in the next ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One picture as the network takes it, with its ground truth."""

    image: Tensor
    """(3, S, S) uint8."""
    boxes_xyxy: Tensor
    """(N, 4) float32, relative."""
    labels: Tensor
    """(N,) int64, 1…C."""
    difficult: Tensor
    """(N,) bool."""
    index: int
    """Position in the split."""


Batches = DataLoader[Sample] | BatchesAhead[Key, Sample, Batch]
"""Made by loader processes, or in this one; yields `Batch`, and has a length."""


class DetectionDataset(Dataset[Sample]):
    """The pictures of a split as samples, varied for training or only resized."""

    def __init__(
        self,
        split: Split,
        cache: ImageCache,
        image_size: int,
        augmentation: AugmentationConfig | None,
        seed: int,
    ) -> None:
        """`augmentation` None: samples are only resized, in training too. Raises ValueError if the
        cache does not hold as many pictures as the split."""
        if len(cache) != len(split.annotations):
            raise ValueError(
                f"{cache.path}: {len(cache)} pictures, but split {split.name!r} has "
                f"{len(split.annotations)}"
            )
        self.split = split
        self.cache = cache
        self.image_size = image_size
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.split.annotations)

    def __getitem__(self, key: Key) -> Sample:
        """`index`: the picture, resized. `(epoch, index)`: as it is varied in that epoch."""
        index = key if isinstance(key, int) else key[1]
        annotation = self.split.annotations[index]
        image = self.cache.image(index)
        sides = np.array([annotation.width, annotation.height] * 2, dtype=np.float32)
        boxes_xyxy = torch.from_numpy(annotation.boxes_xyxy / sides)
        labels = torch.from_numpy(annotation.labels)
        difficult = torch.from_numpy(annotation.difficult)
        if isinstance(key, int) or self.augmentation is None:
            image, boxes_xyxy = resize_only(image, boxes_xyxy, self.image_size)
        else:
            generator = _generator(self.seed, *key)
            image, boxes_xyxy, labels, difficult = augment(
                image, boxes_xyxy, labels, difficult, self.image_size, self.augmentation, generator
            )
        return Sample(image, boxes_xyxy, labels, difficult, index)


def collate(samples: Sequence[Sample]) -> Batch:
    """B samples → a batch, padded to M boxes: the most in any sample, rounded up to a multiple of 8
    (at least 8), so that few shapes occur."""
    most = max(1, *(len(sample.labels) for sample in samples))
    num_boxes = -(-most // _BOXES_MULTIPLE) * _BOXES_MULTIPLE
    shape = (len(samples), num_boxes)
    boxes_xyxy = torch.zeros(*shape, 4)
    labels = torch.zeros(shape, dtype=torch.int64)
    difficult = torch.zeros(shape, dtype=torch.bool)
    for row, sample in enumerate(samples):
        count = len(sample.labels)
        boxes_xyxy[row, :count] = sample.boxes_xyxy
        labels[row, :count] = sample.labels
        difficult[row, :count] = sample.difficult
    return Batch(
        images=torch.stack([sample.image for sample in samples]),
        boxes_xyxy=boxes_xyxy,
        labels=labels,
        difficult=difficult,
        indices=torch.tensor([sample.index for sample in samples], dtype=torch.int64),
    )


def steps_per_epoch(num_images: int, global_batch_size: int) -> int:
    """Whole global batches in an epoch. Raises ValueError if there is none."""
    if num_images < global_batch_size:
        raise ValueError(
            f"the training split has {num_images} pictures, fewer than the global batch of "
            f"{global_batch_size}; set global_batch_size to {num_images} or less"
        )
    return num_images // global_batch_size


class Loader:
    """Makes a data set's batches: in loader processes, which are started with the first batch and
    serve every epoch until this is closed, or in this process."""

    def __init__(
        self, dataset: DetectionDataset, num_processes: int = 0, *, pin_memory: bool = False
    ) -> None:
        """Nothing is started yet.

        Args:
            dataset: what the batches are made of.
            num_processes: loader processes; 0 loads in this process.
            pin_memory: whether batches come in page-locked memory.
        """
        self.dataset = dataset
        self._keys: list[Keys] = []
        self._loader: DataLoader[Sample] | None = None
        if num_processes or pin_memory:
            self._loader = DataLoader(
                dataset,
                batch_sampler=self._keys,
                num_workers=num_processes,
                pin_memory=pin_memory,
                persistent_workers=num_processes > 0,
                collate_fn=collate,
            )

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def batches(self, keys: Sequence[Keys]) -> Batches:
        """The batches of these keys; yields `Batch`, and has a length. Those of earlier keys must
        not be asked for any more.

        Without loader processes pictures can be made ahead, whenever there is time.
        """
        if self._loader is None:
            most = _BATCHES_AHEAD * max(map(len, keys), default=0)
            return BatchesAhead(self.dataset.__getitem__, collate, keys, most=most)
        # The processes are sent the keys of each batch: an epoch is told by them alone.
        self._keys[:] = keys
        return self._loader

    def close(self) -> None:
        """Ends the loader processes. torch does so once nothing refers to them; the frames of an
        error may for long."""
        iterator = self._loader._iterator if self._loader is not None else None
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()


def training_batches(
    dataset: DetectionDataset,
    *,
    epoch: int,
    global_batch_size: int,
    rank: int,
    world_size: int,
    num_processes: int = 0,
    pin_memory: bool = False,
) -> Batches:
    """A single epoch's batches: see :func:`training_keys` and :class:`Loader`."""
    keys = training_keys(
        dataset,
        epoch=epoch,
        global_batch_size=global_batch_size,
        rank=rank,
        world_size=world_size,
    )
    return Loader(dataset, num_processes, pin_memory=pin_memory).batches(keys)


def training_keys(
    dataset: DetectionDataset,
    *,
    epoch: int,
    global_batch_size: int,
    rank: int,
    world_size: int,
    first_step: int = 0,
) -> list[Keys]:
    """This worker's share of each global batch of an epoch.

    Global batch t holds perm[t·B : (t+1)·B], cut into contiguous shares whose sizes differ by one
    at most; perm depends on the data set's seed and the epoch alone. The last, incomplete global
    batch is left out.

    Args:
        dataset: what to draw from.
        epoch: counted from 0.
        global_batch_size: pictures a step over all workers.
        rank: this worker, 0 to `world_size` - 1.
        world_size: number of workers.
        first_step: global batches of the epoch that are left out: an earlier process had them.

    Raises ValueError if the split has fewer pictures than a global batch, or a global batch fewer
    pictures than there are workers.
    """
    num_steps = steps_per_epoch(len(dataset), global_batch_size)
    if world_size > global_batch_size:
        raise ValueError(
            f"{world_size} workers can't share a global batch of {global_batch_size} pictures; "
            f"use at most {global_batch_size} workers or a larger global_batch_size"
        )
    generator = _generator(dataset.seed, epoch)
    order = torch.randperm(len(dataset), generator=generator).tolist()
    begin, end = _share(global_batch_size, rank, world_size)
    keys: list[Keys] = []
    for step in range(first_step, num_steps):
        first = step * global_batch_size
        keys.append([(epoch, index) for index in order[first + begin : first + end]])
    return keys


def evaluation_keys(
    dataset: DetectionDataset, *, batch_size: int, rank: int, world_size: int
) -> list[Keys]:
    """This worker's share of the split in order, only resized, in batches.

    Every picture comes once over all workers: nothing is repeated to fill a batch, so that shares
    and last batches may be smaller, or empty where workers outnumber the pictures.
    """
    begin, end = _share(len(dataset), rank, world_size)
    return [
        list(range(first, min(first + batch_size, end))) for first in range(begin, end, batch_size)
    ]


def _share(count: int, rank: int, world_size: int) -> tuple[int, int]:
    """The contiguous part [begin, end) of `count` things that falls to a worker."""
    return count * rank // world_size, count * (rank + 1) // world_size


def _generator(*seeds: int) -> torch.Generator:
    """A generator for a tuple of whole numbers; near tuples give unrelated streams."""
    seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    return torch.Generator().manual_seed(seed)
