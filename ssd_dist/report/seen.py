"""Whether a detector has seen the pictures that it is evaluated on."""

from __future__ import annotations

from ssd_dist.checkpoint import Checkpoint
from ssd_dist.data import open_split
from ssd_dist.data.file_split import FileSplit
from ssd_dist.structures import Split


def count_seen(
    checkpoint: Checkpoint, split: Split, data: str, data_format: str = "auto"
) -> int | None:
    """How many pictures of a split were trained on, or validated on to choose the checkpoint.

    By the pictures, not by the split's name: VOC's `trainval` is trained on under another name, as
    is COCO's `train2017`.

    Args:
        checkpoint: its configuration names the splits that its training used.
        split: of `data`.
        data: as for `open_split`.
        data_format: of it.

    None where that can't be told: in other data than the checkpoint's, or data that has changed
    since, or where those splits can't be opened.
    """
    chosen = checkpoint.config.data
    try:
        train = open_split(data, chosen.train_split, chosen.class_names, data_format=data_format)
        if train.fingerprint != checkpoint.data_fingerprint:
            return None
        val = open_split(data, chosen.val_split, train.class_names, data_format=data_format)
    except (OSError, ValueError):
        return None
    return len(_pictures(split) & (_pictures(train) | _pictures(val)))


def _pictures(split: Split) -> set[str]:
    """What tells a picture from all others of its data set: its file, as an id may occur in several
    splits; an id where there are no files."""
    if isinstance(split, FileSplit):
        return set(split.picture_paths.names)
    return {annotation.image_id for annotation in split.annotations}
