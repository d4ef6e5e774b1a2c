"""The peer of time_to_map.py: torchvision's SSDLite on EfficientNet-Lite0, with ImageNet weights.

python benchmarks/torchvision_transfer.py --data VOC --lr 0.00625 --until 0.8

torchvision.models.detection's own SSD class, SSDLite head, extra blocks and default boxes, over
timm's backbone with the same file of weights that our training starts from; trained as
torchvision_loop.py trains, with the reference recipe for SSDLite: SGD with momentum 0.9, weight
decay 4e-5, a linear warm-up over the first epoch, cosine after it. After each epoch the split `val`
is evaluated with this project's 11-point mAP, outside of what is clocked. Prints a line of JSON an
epoch: seconds since the process began without validation, and mAP.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import timm
import torch
import tyro
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.utils.data import DataLoader
from torchvision.models.detection import ssdlite
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision_loop import Pictures, as_lists, preset

from ssd_dist.data.readers import open_split
from ssd_dist.evaluation.voc_ap import evaluate_voc
from ssd_dist.model.backbones import backbone_pixels
from ssd_dist.model.weights import _packaged_efficientnet_lite0
from ssd_dist.structures import Detections, Split

NAME = "tf_efficientnet_lite0"
SIDE = 320
BATCH = 8
_EXTRA_CHANNELS = (512, 256, 256, 128)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train torchvision's SSDLite until its validation mAP is reached."""

    data: Path
    """VOC folder with splits `train` and `val`."""
    lr: float
    until: float
    """Validation mAP at which it ends."""
    epochs: int = 30
    """Of the cosine schedule."""
    limit_s: float = math.inf
    """Clocked seconds after which no further epoch begins."""
    loaders: int = 2
    channels_last: bool = True
    threads: int = 2
    """Of torch."""


class Backbone(nn.Module):
    """Maps at strides 16 and 32 of EfficientNet-Lite0, then torchvision's four extra blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.features = timm.create_model(
            NAME, pretrained=False, features_only=True, out_indices=(3, 4)
        )
        # The classifier's last convolution is not among the features.
        weights = _packaged_efficientnet_lite0()
        missing, _ = self.features.load_state_dict(weights, strict=False)
        if any(not name.endswith("num_batches_tracked") for name in missing):
            raise SystemExit(f"no weights for {missing}")
        info: Any = self.features.feature_info
        self.channels = [*info.channels(), *_EXTRA_CHANNELS]
        self.extra = nn.ModuleList(
            ssdlite._extra_block(before, after, nn.BatchNorm2d)
            for before, after in zip(self.channels[1:-1], _EXTRA_CHANNELS, strict=True)
        )
        ssdlite._normal_init(self.extra)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Six maps, as SSD takes them."""
        maps = self.features(images)
        for block in self.extra:
            maps.append(block(maps[-1]))
        return OrderedDict((str(i), one) for i, one in enumerate(maps))


def build(num_outputs: int) -> SSD:
    """Torchvision's detector with the settings of its ssdlite320_mobilenet_v3_large."""
    backbone = Backbone()
    anchors = DefaultBoxGenerator([[2, 3] for _ in range(6)], min_ratio=0.2, max_ratio=0.95)
    head = ssdlite.SSDLiteHead(
        backbone.channels, anchors.num_anchors_per_location(), num_outputs, nn.BatchNorm2d
    )
    pixels = backbone_pixels(NAME)
    detector = SSD(
        backbone, anchors, (SIDE, SIDE), num_outputs, head=head, image_mean=list(pixels.mean),
        image_std=list(pixels.std), score_thresh=0.001, nms_thresh=0.55,
        detections_per_img=300, topk_candidates=300,
    )  # fmt: skip
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 0.001, 0.03
    return detector


@torch.inference_mode()
def validation_map(detector: SSD, split: Split, channels_last: bool) -> float:
    """11-point mAP on a split."""
    detector.eval()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    found = []
    for index, annotation in enumerate(split.annotations):
        pixels = torch.from_numpy(split.read_image(index)).permute(2, 0, 1).float() / 255
        [one] = detector([pixels.unsqueeze(0).contiguous(memory_format=layout)[0]])
        parts = (one[name].numpy() for name in ("boxes", "labels", "scores"))
        found.append(Detections(annotation.image_id, *parts))
    detector.train()
    return evaluate_voc(split.annotations, found, split.class_names).map_11pt


def main(arguments: Arguments) -> None:
    """Trains, and prints a line an epoch."""
    torch.set_num_threads(arguments.threads)
    pictures = Pictures(arguments.data, preset("ssdlite320", "pil"))
    split = open_split(arguments.data, "val")
    loader: DataLoader[Any] = DataLoader(
        pictures,
        batch_size=BATCH,
        shuffle=True,
        num_workers=arguments.loaders,
        collate_fn=as_lists,
        persistent_workers=arguments.loaders > 0,
        drop_last=True,
    )
    detector = build(pictures.num_classes).train()
    if arguments.channels_last:
        detector = detector.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        detector.parameters(), lr=arguments.lr, momentum=0.9, weight_decay=4e-5
    )
    warm_up = LinearLR(optimizer, 0.001, total_iters=len(loader))
    cosine = CosineAnnealingLR(optimizer, len(loader) * (arguments.epochs - 1))
    schedule = SequentialLR(optimizer, [warm_up, cosine], [len(loader)])
    # What the process spent before this line counts, too.
    seconds = time.time() - psutil.Process(os.getpid()).create_time()
    for _ in range(arguments.epochs):
        started = time.perf_counter()
        for images, targets in loader:
            loss = sum(detector(list(images), list(targets)).values())
            if not math.isfinite(loss.item()):
                raise SystemExit(f"the loss is not finite at a learning rate of {arguments.lr}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        seconds += time.perf_counter() - started
        reached = validation_map(detector, split, arguments.channels_last)
        print(json.dumps({"seconds": seconds, "map": reached}), flush=True)
        if reached >= arguments.until or seconds > arguments.limit_s:
            break


if __name__ == "__main__":
    main(tyro.cli(Arguments))
