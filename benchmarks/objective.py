"""Matching, loss and the loss's backward pass, beside torchvision's, on one thread or on a GPU.

python benchmarks/objective.py [--device cuda]

32 pictures, 8,732 priors, 21 outputs, 3 to 15 objects a picture. Theirs: box_iou, SSDMatcher and
SSD.compute_loss, as SSD.forward calls them; ours: padding of the ground truth (collate), which they
do not need, match_priors, multibox_sums and multibox_loss. Both take turns on the same tensors.

The definitions differ in one thing: where two objects share a best prior, theirs gives it to the
last of them and the others may be left without any, ours gives each its own. Losses and gradients
are compared on pictures without such objects. Ends with status 1 if they differ there, or if
torchvision takes less than 3 times as long.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torchvision
import tyro
from paired import by_turns, place_of
from rich.console import Console
from rich.table import Table
from ssd300 import priors, random_objects, torchvision_ssd
from torch import Tensor
from torchvision.ops import box_iou

from ssd_dist.allocator import keep_freed_memory
from ssd_dist.data.dataset import Sample, collate
from ssd_dist.ops.boxes import cxcywh_to_xyxy
from ssd_dist.ops.loss import multibox_loss, multibox_sums
from ssd_dist.ops.matching import match_priors

NEEDED = 3.0
NUM_OUTPUTS = 21
Objects = list[dict[str, Tensor]]


class Outputs(NamedTuple):
    """Of a network, with gradients: the tensors that a backward pass ends at."""

    loc: Tensor
    """(B, P, 4)."""
    conf: Tensor
    """(B, P, 21)."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time matching, loss and backward beside torchvision's."""

    batch: int = 32
    """Pictures."""
    turns: int = 31
    device: str = "cpu"
    keep_memory: bool = True
    """Freed memory stays with the process, as in our trainings; helps both."""


def main(arguments: Arguments) -> None:
    """Compares the results, times both, and prints the ratio."""
    torch.set_num_threads(1)
    if arguments.keep_memory:
        keep_freed_memory()
    generator = torch.Generator().manual_seed(0)
    device = torch.device(arguments.device)
    priors_cxcywh = priors().to(device)
    priors_xyxy = cxcywh_to_xyxy(priors_cxcywh)
    detector = torchvision_ssd(NUM_OUTPUTS)
    objects = random_objects(arguments.batch, NUM_OUTPUTS - 1, generator)
    # Theirs takes each picture's objects from the device, ours a padded batch from the loader.
    their_objects = [{name: t.to(device) for name, t in one.items()} for one in objects]
    loc = torch.randn(arguments.batch, len(priors_cxcywh), 4, generator=generator) * 0.5
    conf = torch.randn(arguments.batch, len(priors_cxcywh), NUM_OUTPUTS, generator=generator)
    conf[..., 0] += 4
    outputs = Outputs(loc.to(device).requires_grad_(), conf.to(device).requires_grad_())

    def ours(objects: Objects = objects, outputs: Outputs = outputs) -> Tensor:
        outputs.loc.grad = outputs.conf.grad = None
        dot = torch.zeros(3, 1, 1, dtype=torch.uint8)
        batch = collate(
            [Sample(dot, o["boxes"], o["labels"], torch.zeros(len(o["labels"])).bool(), 0)
             for o in objects]
        ).to(device)  # fmt: skip
        targets = match_priors(batch.boxes_xyxy, batch.labels, batch.difficult, priors_cxcywh)
        sums = multibox_sums(outputs.loc, outputs.conf, targets, 3.0)
        loss = multibox_loss(sums, 1.0, sums.num_positives)
        loss.backward()
        return loss

    def theirs(objects: Objects = their_objects, outputs: Outputs = outputs) -> Tensor:
        outputs.loc.grad = outputs.conf.grad = None
        matched = [detector.proposal_matcher(box_iou(o["boxes"], priors_xyxy)) for o in objects]
        named = {"bbox_regression": outputs.loc, "cls_logits": outputs.conf}
        losses = detector.compute_loss(objects, named, [priors_xyxy] * len(objects), matched)
        loss = sum(losses.values(), start=torch.zeros(()))
        loss.backward()
        return loss

    console = Console(width=110, highlight=False)
    best = [box_iou(o["boxes"], priors_xyxy).argmax(1) for o in their_objects]
    apart = [i for i, own in enumerate(best) if len(own.unique()) == len(own)]
    part = Outputs(*(t.detach()[apart].requires_grad_() for t in outputs))
    results = []
    for run, given in ((ours, objects), (theirs, their_objects)):
        loss = run([given[i] for i in apart], part).item()
        assert part.loc.grad is not None
        assert part.conf.grad is not None
        results.append((loss, part.loc.grad.clone(), part.conf.grad.clone()))
    loss_gap = abs(results[0][0] - results[1][0]) / results[1][0]
    pairs = zip(results[0][1:], results[1][1:], strict=True)
    gap = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    console.print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, Python "
        f"{platform.python_version()}, {place_of(device)}\n"
        f"{len(apart)} of {len(objects)} pictures have no two objects with one best prior; there "
        f"the losses are {results[0][0]:.6f} and {results[1][0]:.6f}, gradients differ by "
        f"{gap:.1e} of the largest; on all pictures {ours().item():.4f} and {theirs().item():.4f}"
    )
    paired = by_turns(ours, theirs, arguments.turns, device)
    table = Table(title=f"matching, loss, backward: {arguments.batch} pictures, 8,732 priors")
    for column in ("ours ms", "torchvision ms", "times as long (middle half)"):
        table.add_column(column, justify="right")
    table.add_row(*paired.cells())
    console.print(table)
    console.print(f"torchvision takes {paired.ratio:.2f} times as long, {NEEDED} needed")
    sys.exit(paired.ratio < NEEDED or loss_gap > 1e-5 or gap > 1e-4)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
