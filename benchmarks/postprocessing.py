"""From the network's outputs to detections, beside torchvision's, on one thread or on a GPU.

python benchmarks/postprocessing.py [--device cuda]

32 pictures, 8,732 priors, 21 outputs. Theirs: SSD.postprocess_detections with its defaults; ours:
detect with the same thresholds and numbers. `candidates_of="class"` is torchvision's own rule: 400
candidates of each class. Ours by default takes the 400 best of a picture, which is another result
where a picture has more than that and few of them survive. Two inputs:

dense    random scores, as of an untrained network: every pair of prior and class is above the
         threshold. The floor holds here, for both rules.
sparse   scores as of a trained one, but drawn: most priors are sure of background, those at objects
         say so. No floor: there is little to do, and torchvision does it quickly, too.

Ends with status 1 if torchvision takes less than 8 times as long on the dense input, or if our
detections by torchvision's rule are not its own: more than 1 in 10,000 is another (boxes are
rounded differently, which turns an IoU at the threshold), or the mAP differs by more than 1e-4.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torchvision
import tyro
from paired import by_turns, place_of
from rich.console import Console
from rich.table import Table
from ssd300 import SIDE, priors, random_objects, torchvision_ssd
from torch import Tensor

from ssd_dist.allocator import keep_freed_memory
from ssd_dist.evaluation.voc_ap import evaluate_voc
from ssd_dist.ops.boxes import cxcywh_to_xyxy
from ssd_dist.ops.matching import match_priors
from ssd_dist.ops.postprocess import detect
from ssd_dist.structures import Annotation, Detections

NEEDED = 8.0
NUM_OUTPUTS = 21
MAX_CANDIDATES = 400
"""Torchvision's own default."""
CLASS_NAMES = tuple(f"class {i}" for i in range(1, NUM_OUTPUTS))
ALLOWED_OTHERS, ALLOWED_MAP = 1e-4, 1e-4
Rule = Literal["class", "image"]
Found = list[tuple[Tensor, Tensor, Tensor]]
"""Boxes in pixels, labels and scores of each picture."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time post-processing beside torchvision's."""

    batch: int = 32
    """Pictures."""
    turns: int = 11
    device: str = "cpu"
    keep_memory: bool = True
    """Freed memory stays with the process, as in our trainings; helps both."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a network said of a batch, and what there was."""

    name: str
    loc: Tensor
    conf: Tensor
    objects: list[dict[str, Tensor]]

    def to(self, device: torch.device) -> Outputs:
        """The network's outputs on a device."""
        return Outputs(self.name, self.loc.to(device), self.conf.to(device), self.objects)


def dense(batch: int, priors_cxcywh: Tensor, generator: torch.Generator) -> Outputs:
    """Random logits and offsets; the objects have nothing to do with them."""
    loc = torch.randn(batch, len(priors_cxcywh), 4, generator=generator) * 0.5
    conf = torch.randn(batch, len(priors_cxcywh), NUM_OUTPUTS, generator=generator)
    return Outputs("dense", loc, conf, random_objects(batch, NUM_OUTPUTS - 1, generator))


def sparse(batch: int, priors_cxcywh: Tensor, generator: torch.Generator) -> Outputs:
    """Priors with an IoU of 0.4 or more score for their object's class, most of them much, and
    their boxes are nearly right; the others are sure of background."""
    objects = random_objects(batch, NUM_OUTPUTS - 1, generator)
    boxes = torch.zeros(batch, 15, 4)
    labels = torch.zeros(batch, 15, dtype=torch.int64)
    for row, own in enumerate(objects):
        boxes[row, : len(own["labels"])] = own["boxes"]
        labels[row, : len(own["labels"])] = own["labels"]
    none = torch.zeros(labels.shape, dtype=torch.bool)
    targets = match_priors(boxes, labels, none, priors_cxcywh, 0.4)
    loc = targets.loc + torch.randn(targets.loc.shape, generator=generator) * 0.5
    conf = torch.randn(*targets.labels.shape, NUM_OUTPUTS, generator=generator) * 0.7
    conf[..., 0] += 9
    image, prior = (targets.labels > 0).nonzero(as_tuple=True)
    certainty = 7 + 2 * torch.randn(len(image), generator=generator)
    conf[image, prior, targets.labels[image, prior]] += certainty
    return Outputs("sparse", loc, conf, objects)


def mean_ap(found: Found, objects: list[dict[str, Tensor]]) -> float:
    """11-point AP of all classes."""
    annotations, detections = [], []
    for i, (own, (boxes, labels, scores)) in enumerate(zip(objects, found, strict=True)):
        truth = (own["boxes"] * SIDE).numpy(), own["labels"].numpy()
        difficult = torch.zeros(len(own["labels"]), dtype=torch.bool).numpy()
        annotations.append(Annotation(str(i), SIDE, SIDE, *truth, difficult))
        parts = (part.cpu().numpy() for part in (boxes, labels, scores))
        detections.append(Detections(str(i), *parts))
    return evaluate_voc(annotations, detections, CLASS_NAMES).map_11pt


def num_others(ours: Found, theirs: Found) -> int:
    """Detections of either that the other lacks: of a picture, a label, a score to 1e-5 and corners
    to a hundredth of a pixel."""
    count = 0
    for (boxes, labels, scores), (boxes2, labels2, scores2) in zip(ours, theirs, strict=True):
        same = labels[:, None] == labels2
        same &= (scores[:, None] - scores2).abs() <= 1e-5
        same &= (boxes[:, None] - boxes2).abs().amax(-1) <= 1e-2
        count += int((~same.any(1)).sum() + (~same.any(0)).sum())
    return count


def compare(
    outputs: Outputs, priors_cxcywh: Tensor, turns: int, console: Console
) -> tuple[float, bool]:
    """Prints an input's table; the smaller of both rules' ratios, and whether the detections by
    torchvision's rule are its own."""
    detector = torchvision_ssd(NUM_OUTPUTS).eval()
    anchors_xyxy = [cxcywh_to_xyxy(priors_cxcywh) * SIDE] * len(outputs.conf)
    shapes = [(SIDE, SIDE)] * len(outputs.conf)
    heads = {"bbox_regression": outputs.loc, "cls_logits": outputs.conf}

    @torch.inference_mode()
    def theirs() -> list[dict[str, Tensor]]:
        found: list[dict[str, Tensor]] = detector.postprocess_detections(
            heads, anchors_xyxy, shapes
        )
        return found

    def ours(rule: Rule) -> Found:
        return detect(
            outputs.loc,
            outputs.conf,
            priors_cxcywh,
            score_threshold=detector.score_thresh,
            nms_iou_threshold=detector.nms_thresh,
            max_candidates=detector.topk_candidates,
            max_detections=detector.detections_per_img,
            candidates_of=rule,
        )

    above = outputs.conf.softmax(-1)[..., 1:] > detector.score_thresh
    table = Table(
        title=f"{outputs.name}: {above.sum() / len(above):,.0f} pairs of prior and class a picture "
        f"above {detector.score_thresh}"
    )
    for column in (
        "candidates of",
        "ours ms",
        "theirs ms",
        "times as long",
        "detections",
        "others",
        "mAP",
        "their mAP",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    expected = [(d["boxes"], d["labels"], d["scores"]) for d in theirs()]
    num_expected = sum(len(scores) for _, _, scores in expected)
    expected_map = mean_ap(expected, outputs.objects)
    ratios, agrees = {}, {}
    for rule in ("class", "image"):
        found = [(boxes * SIDE, labels, scores) for boxes, labels, scores in ours(rule)]
        others, own_map = num_others(found, expected), mean_ap(found, outputs.objects)
        paired = by_turns(partial(ours, rule), theirs, turns, outputs.conf.device)
        counts = sum(len(scores) for _, _, scores in found), others
        table.add_row(
            f"a {'picture (default)' if rule == 'image' else 'class'}",
            *paired.cells(),
            *(f"{count:,}" for count in counts),
            f"{own_map:.5f}",
            f"{expected_map:.5f}",
        )
        ratios[rule] = paired.ratio
        agrees[rule] = (
            others <= ALLOWED_OTHERS * num_expected and abs(own_map - expected_map) <= ALLOWED_MAP
        )
    console.print(table)
    console.print(_difference(ours("image"), expected, above, agrees["image"]))
    return min(ratios.values()), agrees["class"]


def _difference(default: Found, expected: Found, above: Tensor, is_same: bool) -> str:
    """In words, where the default rule's result is another."""
    crowded = int((above.sum((1, 2)) > MAX_CANDIDATES).sum())
    if is_same:
        return f"{crowded} of {len(default)} pictures have over 400 pairs; the default is the same"
    fewer = sum(len(own[2]) < len(their[2]) for own, their in zip(default, expected, strict=True))
    return (
        f"the default differs: {crowded} of {len(default)} pictures have over 400 pairs, and "
        f"{fewer} end with fewer detections, as NMS leaves fewer of 400 than of 400 a class"
    )


def main(arguments: Arguments) -> None:
    """Compares the detections, times both, and prints the ratios."""
    torch.set_num_threads(1)
    if arguments.keep_memory:
        keep_freed_memory()
    device = torch.device(arguments.device)
    console = Console(width=110, highlight=False)
    console.print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, Python "
        f"{platform.python_version()}, {place_of(device)}; "
        f"{arguments.batch} pictures, 8,732 priors, {NUM_OUTPUTS} outputs"
    )
    generator = torch.Generator().manual_seed(0)
    priors_cxcywh = priors()
    results = [
        compare(
            draw(arguments.batch, priors_cxcywh, generator).to(device),
            priors_cxcywh.to(device),
            arguments.turns,
            console,
        )
        for draw in (dense, sparse)
    ]
    (ratio, _), (sparse_ratio, _) = results
    same = all(agrees for _, agrees in results)
    console.print(
        f"dense: torchvision takes at least {ratio:.2f} times as long, {NEEDED} needed; sparse: "
        f"{sparse_ratio:.2f} times; by torchvision's rule detections are "
        f"{'the same' if same else 'NOT the same'}"
    )
    sys.exit(ratio < NEEDED or not same)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
