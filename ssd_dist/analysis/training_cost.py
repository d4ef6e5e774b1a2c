"""What one training step costs by count: forward pass, loss, backward pass, update, memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch.func import functional_call

from ssd_dist.analysis.counting import AsOnDevice, OperationCounter, stand_ins
from ssd_dist.analysis.layers import Cost, num_bytes, total, with_intensity
from ssd_dist.analysis.memory import LiveMemory, Memory, saved_for_backward
from ssd_dist.config import Config, OptimizerConfig
from ssd_dist.engine import laid_out
from ssd_dist.model.ssd import SSD
from ssd_dist.ops.loss import multibox_loss, multibox_sums
from ssd_dist.structures import Targets

_FLOAT = 4
"""Bytes."""


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """A step on `batch_size` pictures in one process, in fp32; matching is not counted, as it
    depends on the number of objects."""

    batch_size: int
    optimizer: str
    """`sgd` or `adamw`."""
    forward: Cost
    loss: Cost
    """Eq. 1 with its sorting for hard negatives."""
    backward: Cost
    """Of the loss and the network. Its MACs are the sum of the next two."""
    input_gradient_macs: int
    """About as many as the forward pass's: all layers but those before which nothing trains."""
    weight_gradient_macs: int
    """About as many as the forward pass's: all layers but frozen ones."""
    update: Cost
    """Clipping, the optimizer, and the moving average of the weights."""
    memory: Memory

    @property
    def step(self) -> Cost:
        """All of it."""
        return total([self.forward, self.loss, self.backward, self.update])

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and numbers, with sums and intensities."""
        parts = ("forward", "loss", "backward", "update", "step")
        return {
            "batch_size": self.batch_size,
            "optimizer": self.optimizer,
            **{name: with_intensity(getattr(self, name)) for name in parts},
            "input_gradient_macs": self.input_gradient_macs,
            "weight_gradient_macs": self.weight_gradient_macs,
            "memory": {**asdict(self.memory), "total": self.memory.total},
        }


def count_training(
    model: SSD, config: Config, *, image_size: int, num_priors: int, batch_size: int
) -> TrainingCost:
    """Counts a training step as the engine takes it, on tensors without memory: the loss of all
    priors at once, as on a GPU (see ops/by_device.py), of which a CPU keeps a little less; the
    batch in `config.accumulation` parts.

    Args:
        model: in train mode.
        config: of the loss, the optimizer and the layout in memory.
        image_size: side of the pictures, in pixels.
        num_priors: P at this size.
        batch_size: pictures of one process.
    """
    num_parts = min(config.accumulation, batch_size)
    parameters, buffers = stand_ins(model)
    shape = (batch_size, 3, image_size, image_size)
    images = torch.empty(shape, dtype=torch.uint8, device="meta")
    targets = Targets(
        labels=torch.empty(batch_size, num_priors, dtype=torch.int64, device="meta"),
        loc=torch.empty(batch_size, num_priors, 4, device="meta"),
    )
    batch = [images, targets.labels, targets.loc]
    own = [*parameters.values(), *buffers.values(), *batch]
    counter = OperationCounter(model, parameters)
    forward, objective, behind = [], [], []
    activations = 0
    parts = zip(*(whole.tensor_split(num_parts) for whole in batch), strict=True)
    with torch.enable_grad(), AsOnDevice(), LiveMemory(own) as live, counter:
        for pictures, *matched in parts:
            began = len(counter.layers)
            with saved_for_backward(own) as saved:
                loc, conf = functional_call(
                    model, parameters | buffers, (laid_out(pictures, config),)
                )
                until_loss = len(counter.layers)
                sums = multibox_sums(loc, conf, Targets(*matched), config.loss.neg_pos_ratio)
                loss = multibox_loss(sums, config.alpha, sums.num_positives)
            until_backward = len(counter.layers)
            loss.backward()
            forward += counter.layers[began:until_loss]
            objective += counter.layers[until_loss:until_backward]
            behind += counter.layers[until_backward:]
            activations = max(activations, sum(saved.values()))

    input_macs = sum(layer.input_gradient_macs for layer in forward)
    weight_macs = sum(layer.weight_gradient_macs for layer in forward)
    # The backward pass's own products are those gradients, by other names.
    backward = replace(total(behind), macs=input_macs + weight_macs)
    trained = [p for p in parameters.values() if p.requires_grad]
    num_trained = sum(p.numel() for p in trained)
    weights = sum(map(num_bytes, (*parameters.values(), *buffers.values())))
    optimizer_state = num_trained * _state_bytes(config.optimizer)
    average = weights if config.optimizer.ema_decay else 0
    batch_bytes = sum(map(num_bytes, batch))
    return TrainingCost(
        batch_size=batch_size,
        optimizer=config.optimizer.name,
        forward=total(forward),
        loss=total(objective),
        backward=backward,
        input_gradient_macs=input_macs,
        weight_gradient_macs=weight_macs,
        update=update_cost(config.optimizer, num_trained),
        memory=Memory(
            weights=weights,
            gradients=sum(map(num_bytes, trained)),
            optimizer_state=optimizer_state,
            average=average,
            activations=activations,
            batch=batch_bytes,
            peak=weights + optimizer_state + average + batch_bytes + live.peak,
        ),
    )


def update_cost(optimizer: OptimizerConfig, num_trained: int) -> Cost:
    """Of clipping and one step of the optimizer, and of the moving average where there is one.

    w is a weight, g its gradient, v its momentum or second moment, m its first moment:

    - clipping: the norm (2 operations, reads g) and the scaling (1, reads and writes g);
    - SGD: g + 2λw, w - lr·g (4, reads w, g, writes w), its momentum μv + g (2, reads, writes v);
    - AdamW: decay of w (1), both moments (3 + 4), the root and the step (7), reads w, g, m, v and
      writes w, m, v;
    - average: a·(1 - d) + w·d (3, reads a, w, writes a).
    """
    parts = [Cost(0, 3, 2 * _FLOAT, _FLOAT)]
    if optimizer.name == "adamw":
        parts.append(Cost(0, 15, 4 * _FLOAT, 3 * _FLOAT))
    else:
        parts.append(Cost(0, 4, 2 * _FLOAT, _FLOAT))
        if optimizer.momentum:
            parts.append(Cost(0, 2, _FLOAT, _FLOAT))
    if optimizer.ema_decay:
        parts.append(Cost(0, 3, 2 * _FLOAT, _FLOAT))
    one = total(parts)
    return Cost(
        0,
        one.other_ops * num_trained,
        one.bytes_read * num_trained,
        one.bytes_written * num_trained,
    )


def _state_bytes(optimizer: OptimizerConfig) -> int:
    """Bytes that the optimizer keeps for each trained parameter: AdamW's two moments, SGD's
    momentum."""
    if optimizer.name == "adamw":
        return 2 * _FLOAT
    return _FLOAT if optimizer.momentum else 0
