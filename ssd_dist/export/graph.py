"""The whole detector as one module: uint8 pictures in, padded detections out."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn

from ssd_dist.config import PostprocessConfig
from ssd_dist.export.resize import DynamicResize, FixedResize, picture_size
from ssd_dist.export.suppression import Suppress, survivors
from ssd_dist.model.mirror import averaged_output, mirrored_orders
from ssd_dist.model.ssd import SSD
from ssd_dist.ops.boxes import decode

OUTPUTS = ("boxes", "scores", "labels", "num_detections")
"""Names of what :class:`ExportedDetector` gives, in this order."""

PaddedDetections: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""Detections of B pictures, highest score first, padded to D:

- boxes: (B, D, 4) float32, xyxy, in pixels of the pictures given; 0 where padded.
- scores: (B, D) float32, 0 to 1; 0 where padded.
- labels: (B, D) int64, 1…C; 0 where padded.
- num_detections: (B,) int64, how many are there.
"""


class ExportedDetector(nn.Module):
    """Resizing, network, decoding and non-maximum suppression, all shapes but B, H and W fixed.

    It finds what `engine.detect_in` finds in the same pictures, in float32, whatever the precision
    of the training. D is the configuration's `max_detections`, at most the number of candidates.
    """

    def __init__(
        self,
        model: SSD,
        config: PostprocessConfig,
        size: tuple[int, int] | None,
        suppress: Suppress = survivors,
    ) -> None:
        """`size`: width and height of the pictures; None: any. `model` is put in eval mode, and
        its parameters ask for no gradient any more."""
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.config = config
        self.size = size
        side = model.image_size
        self.resize = DynamicResize(side) if size is None else FixedResize(*size, side)
        self.suppress = suppress
        num_priors, num_classes = len(model.priors_cxcywh), model.num_classes
        of_class = config.candidates_of == "class"
        # Of each class, or of all (prior, class) pairs.
        self.num_candidates = min(
            config.max_candidates, num_priors if of_class else num_priors * num_classes
        )
        self.num_detections = min(
            config.max_detections, self.num_candidates * (num_classes if of_class else 1)
        )
        self.orders = mirrored_orders(model, config.mirror)

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> PaddedDetections:
        """(B, 3, H, W) uint8, RGB."""
        images = self.resize(pictures)
        loc, conf = averaged_output(self.model, images, self.config.mirror, self.orders)
        boxes, scores, labels = self._candidates(loc, conf)
        survive = self.suppress(
            boxes, scores, labels, self.model.num_classes, self.config.nms_iou_threshold
        )
        scores, order = torch.where(survive, scores, -1.0).topk(self.num_detections, dim=1)
        found = scores > 0
        boxes = boxes.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
        height, width = picture_size(pictures, torch.float32)
        boxes = boxes * torch.stack([width, height, width, height]) * found.unsqueeze(-1)
        return boxes, scores * found, labels.gather(1, order) * found, found.sum(1)

    def _candidates(self, loc: Tensor, conf: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The K (prior, class) pairs of the highest scores, of all or of each class: boxes
        (B, K, 4), scores (B, K), which are -1 where `detect` would drop the pair, labels (B, K)."""
        num_classes = self.model.num_classes
        probabilities = conf.softmax(-1)[..., 1:]
        if self.config.candidates_of == "class":
            scores, prior = probabilities.topk(self.num_candidates, dim=1)  # (B, K / C, C)
            classes = torch.arange(1, num_classes + 1, device=prior.device)
            labels = classes.expand_as(prior).flatten(1)
            scores, prior = scores.flatten(1), prior.flatten(1)
        else:
            scores, flat = probabilities.flatten(1).topk(self.num_candidates, dim=1)
            prior, labels = flat // num_classes, flat % num_classes + 1
        loc = loc.gather(1, prior.unsqueeze(-1).expand(-1, -1, 4))
        boxes = decode(loc, self.model.priors_cxcywh[prior]).clamp(0, 1)
        valid = (scores > self.config.score_threshold) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
        return boxes, torch.where(valid, scores, -1.0), labels
