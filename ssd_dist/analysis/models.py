"""What a model's name on a command line means: a configuration and a number of classes."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import timm
import torch

from ssd_dist.analysis.counting import AsOnDevice
from ssd_dist.config import OWN_SIZES, Config, load_config, replace_at
from ssd_dist.model.backbones import TORCHVISION_DETECTORS
from ssd_dist.model.ssd import SSD, build_model

COCO_NUM_CLASSES = 91
"""COCO's classes as torchvision counts them, background included."""

_IMAGE_SIZE = 300
_BATCH_SIZE = 8

Head = Literal["ssd", "ssdlite"]
Optimizer = Literal["sgd", "adamw"]


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """A model, not yet built."""

    name: str
    """As it was asked for."""
    config: Config
    num_classes: int
    """C, background not counted."""

    def build(self) -> SSD:
        """With random weights, on the CPU. Raises ValueError where the image is too small for the
        feature maps."""
        return build_model(self.config.model, self.num_classes, load_weights=False)

    def build_without_memory(self) -> SSD:
        """With shapes instead of weights, which is all that counting needs and takes a fraction of
        the time and memory. Raises ValueError as :meth:`build` does."""
        if self.config.model.norm == "none":  # folding batch norm computes
            return self.build()
        with torch.device("meta"), AsOnDevice():  # which is quick about batch norm's shapes
            return self.build()


def choose_model(
    name: str,
    *,
    image_size: int | None = None,
    num_classes: int | None = None,
    head: Head | None = None,
    batch_size: int | None = None,
    optimizer: Optimizer | None = None,
) -> ChosenModel:
    """The model that a name stands for.

    Args:
        name: `ssd300_vgg16` or `ssdlite320_mobilenet_v3_large` (torchvision's detectors), a timm
            backbone to put heads on, or a configuration file (.yaml).
        image_size: side of the input in pixels; None: the configuration's, or the size that the
            detector was made for, or 300.
        num_classes: classes with the background among them, as torchvision counts; None: those that
            the configuration names, or COCO's 91.
        head: of a timm backbone; None: `ssd`.
        batch_size: pictures of a training step; None: the configuration's, or 8.
        optimizer: None: the configuration's.

    Raises ValueError for a name that means nothing, naming close ones, and for a number out of its
    range; FileNotFoundError for a configuration file that does not exist.
    """
    if num_classes is not None and num_classes < 2:
        raise ValueError(
            f"--num-classes {num_classes}: the background counts as one, so a detector has at "
            "least 2"
        )
    is_file = Path(name).suffix in (".yaml", ".yml")
    if head is not None and (is_file or name in TORCHVISION_DETECTORS):
        raise ValueError(f"--head {head} is for a timm backbone; {name} has a head of its own")
    if is_file:
        config = load_config(name)
        class_names = config.data.class_names
        own_num_classes = COCO_NUM_CLASSES if class_names is None else len(class_names) + 1
    else:
        fields = _model_fields(name, head or "ssd")
        config = replace_at(Config(), {"global_batch_size": _BATCH_SIZE, **fields})
        own_num_classes = COCO_NUM_CLASSES
    given = {
        "model.image_size": image_size,
        "global_batch_size": batch_size,
        "optimizer.name": optimizer,
    }
    config = replace_at(config, {path: value for path, value in given.items() if value is not None})
    return ChosenModel(name, config, (num_classes or own_num_classes) - 1)


def _model_fields(name: str, head: Head) -> dict[str, object]:
    if name in TORCHVISION_DETECTORS:
        return {"model.architecture": name, "model.image_size": OWN_SIZES[name]}
    if not timm.is_model(name):
        known = [*TORCHVISION_DETECTORS, *timm.list_models()]
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() has them all"
        raise ValueError(
            f"--model {name}: neither {' nor '.join(TORCHVISION_DETECTORS)}, nor a timm backbone, "
            f"nor a configuration file (.yaml); {hint}"
        )
    return {
        "model.architecture": head,
        "model.backbone": name,
        "model.image_size": _IMAGE_SIZE,
    }
