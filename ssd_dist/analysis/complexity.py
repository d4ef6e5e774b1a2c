"""What a detector costs by count: operations, parameters and bytes, layer by layer and in sum.

A run on tensors without memory shows what PyTorch would do; nothing is computed, and no data,
weights or device are needed. All figures are for fp32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.func import functional_call

from ssd_dist.analysis.counting import AsOnDevice, OperationCounter, stand_ins
from ssd_dist.analysis.layers import Cost, Layer, total, with_intensity
from ssd_dist.analysis.postprocessing_cost import PostprocessingCost, count_postprocessing
from ssd_dist.analysis.training_cost import TrainingCost, count_training
from ssd_dist.config import Config
from ssd_dist.engine import laid_out
from ssd_dist.model.ssd import SSD

OPERATIONS_FORMULA = "O(Σ n_{l-1}·f²·n_l·m_l²)"
"""Eq. 3: multiply-accumulates of the layers l = 1, 2, …: channels in times filter times channels
out times output cells; divided by the groups, where there are any."""
MEMORY_FORMULA = "O(weights)"
"""What a model takes to keep, whatever the image size."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the way from a picture to its detections."""

    params: int
    activations: int
    """Elements of all outputs."""
    cost: Cost

    @property
    def macs(self) -> int:
        """Eq. 3."""
        return self.cost.macs


@dataclass(frozen=True, slots=True)
class Complexity:
    """What a model costs at one image size: to detect in one picture, and to train a step."""

    image_size: int
    layers: tuple[Layer, ...]
    """Of the forward pass on one picture, in its order."""
    segments: dict[str, Segment]
    """`preprocessing` (layout and normalisation of pixels), `backbone`, `extras`, `heads` and
    `postprocessing`; they add up to the totals. `extras`: the 1x1 convolutions and stride-2 maps
    after the backbone (in torchvision's SSD300 the module `extra`, from VGG's conv5 on)."""
    postprocessing: PostprocessingCost
    training: TrainingCost
    total_params: int
    """All parameters of the model, batch norm's too."""

    @property
    def cost(self) -> Cost:
        """Of one picture, from pixels to detections."""
        return total(segment.cost for segment in self.segments.values())

    @property
    def total_macs(self) -> int:
        """Eq. 3 of one picture's forward pass."""
        return self.cost.macs

    @property
    def total_bytes_moved(self) -> int:
        """Bytes read and written from pixels to detections, each operation's inputs, weights and
        outputs counted once."""
        return self.cost.bytes_moved

    def to_json(self) -> dict[str, Any]:
        """The same as plain dicts, lists and numbers."""
        segments = {
            name: {
                "params": segment.params,
                "activations": segment.activations,
                **with_intensity(segment.cost),
            }
            for name, segment in self.segments.items()
        }
        return {
            "image_size": self.image_size,
            "formula": {"macs": OPERATIONS_FORMULA, "params": MEMORY_FORMULA},
            "total_macs": self.total_macs,
            "total_params": self.total_params,
            "total_other_ops": self.cost.other_ops,
            "total_activations": sum(layer.activations for layer in self.layers),
            "total_bytes_moved": self.total_bytes_moved,
            "layers": [with_intensity(layer) for layer in self.layers],
            "segments": segments,
            "postprocessing": self.postprocessing.to_json(),
            "training": self.training.to_json(),
        }


def count_complexity(
    model: SSD, image_size: int, config: Config | None = None, *, batch_size: int | None = None
) -> Complexity:
    """Counts what the model costs on pictures of `image_size` pixels a side.

    Args:
        model: on any device, `meta` too; left as it was.
        image_size: need not be the size that the model was built for.
        config: of post-processing, loss and optimizer; the default one where None.
        batch_size: pictures of the training step; where None, the configuration's.
    """
    config = Config() if config is None else config
    was_training = model.training
    try:
        layers, (num_priors, num_outputs) = _forward_layers(model.eval(), config, image_size)
        training = count_training(
            model.train(),
            config,
            image_size=image_size,
            num_priors=num_priors,
            batch_size=config.global_batch_size if batch_size is None else batch_size,
        )
    finally:
        model.train(was_training)
    postprocessing = count_postprocessing(num_priors, num_outputs, config.postprocess)
    segments = _network_segments(model, layers)
    segments["postprocessing"] = Segment(params=0, activations=0, cost=postprocessing.cost)
    return Complexity(
        image_size=image_size,
        layers=tuple(layers),
        segments=segments,
        postprocessing=postprocessing,
        training=training,
        total_params=sum(parameter.numel() for parameter in model.parameters()),
    )


def _forward_layers(
    model: SSD, config: Config, image_size: int
) -> tuple[list[Layer], tuple[int, int]]:
    """The layers of a forward pass on one picture; and P and C + 1, the sizes of its output."""
    parameters, buffers = stand_ins(model)
    images = torch.empty(1, 3, image_size, image_size, dtype=torch.uint8, device="meta")
    # With gradients, though none are taken: so the layers know which would be due.
    with torch.enable_grad(), AsOnDevice(), OperationCounter(model, parameters) as counter:
        _, conf = functional_call(model, parameters | buffers, (laid_out(images, config),))
    return counter.layers, (conf.shape[1], conf.shape[2])


def _network_segments(model: SSD, layers: Iterable[Layer]) -> dict[str, Segment]:
    parts: dict[str, list[Layer]] = {
        name: [] for name in ("preprocessing", "backbone", "extras", "heads")
    }
    current = "preprocessing"
    for layer in layers:
        current = _segment(layer.name) or current
        parts[current].append(layer)
    params: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        params[_segment(name) or "backbone"] += parameter.numel()
    return {
        name: Segment(params[name], sum(layer.activations for layer in part), total(part))
        for name, part in parts.items()
    }


def _segment(name: str) -> str | None:
    """Of a layer or parameter; None between the parts: that belongs to what ran before it."""
    if name.startswith("head."):
        return "heads"
    if name.startswith(("backbone.extra.", "backbone.neck.")):
        return "extras"
    return "backbone" if name.startswith("backbone.features.") else None
