"""The network of a checkpoint."""

from __future__ import annotations

from ssd_dist.checkpoint import Checkpoint, load_into
from ssd_dist.model.folding import settle_held_norms
from ssd_dist.model.ssd import SSD, build_model


def restored(checkpoint: Checkpoint, *, to_detect: bool = True) -> SSD:
    """The checkpoint's network, on the CPU, in eval mode.

    Args:
        checkpoint: what to restore.
        to_detect: whether that is all it will do; False leaves it as it was trained, for what
            trains it, counts it or asks for its state dict.

    Raises ValueError, in one sentence, if the weights are not those of its configuration.
    """
    model = build_model(checkpoint.config.model, len(checkpoint.class_names), load_weights=False)
    load_into(model, checkpoint.weights, "the checkpoint")
    if to_detect:
        settle_held_norms(model)
    return model.eval()
