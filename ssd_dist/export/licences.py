"""What is known of the licences of a detector's first weights and of its data, and no more."""

from __future__ import annotations

from pathlib import Path

from ssd_dist.config import ModelConfig
from ssd_dist.data.sources import fetched_folder, is_remote
from ssd_dist.model.backbones import TORCHVISION_DETECTORS, backbone_pixels

NOT_STATED = "not stated"
_FILES = ("LICENSE*", "LICENCE*", "COPYING*")


def licence_of_data(data: str) -> str:
    """The first line of a licence file in the data set's folder, or "not stated"; nothing is
    fetched for it."""
    if data == "synthetic":
        return "none needed: the pictures are drawn by this program"
    try:
        root = fetched_folder(data) if is_remote(data) else Path(data).expanduser()
        if root is None:
            return NOT_STATED
        files = sorted(file for pattern in _FILES for file in root.glob(pattern))
        for file in files:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            title = next((line.strip() for line in lines if line.strip()), "")
            if title:
                return f"the data set's {file.name} begins “{title[:80]}”"
    except (OSError, ValueError):
        pass
    return NOT_STATED


def licence_of_weights(model: ModelConfig) -> str:
    """Of the weights that the training started from."""
    if model.weights == "none":
        return "the training started from random weights"
    if model.weights == "imagenet" and model.architecture not in TORCHVISION_DETECTORS:
        stated = backbone_pixels(model.backbone).license
        said = f"timm states {stated!r} for its weights of that name" if stated else NOT_STATED
        return f"the training started from ImageNet weights of {model.backbone}: {said}"
    if model.weights in ("imagenet", "coco"):
        return f"the training started from torchvision's {model.weights} weights: {NOT_STATED}"
    return f"the training started from {Path(model.weights).name}: {NOT_STATED}"
