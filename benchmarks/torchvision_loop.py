"""The peer of training.py: torchvision's own detector in a loop like its reference script's.

python benchmarks/torchvision_loop.py --model ssdlite320_mobilenet_v3_large --data VOC …

After torchvision/references/detection, train.py and presets.py: the preset's transforms on PIL
pictures, a DataLoader that hands over lists, the model's own resizing, matching and loss, SGD. The
XML files are read once beforehand, and loader processes live on from epoch to epoch; both are
faster than what the script does. Prints, as JSON, pictures a second of every epoch.
"""

from __future__ import annotations

import json
import math
import os
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
import torchvision
import tyro
from PIL import Image
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler, RandomSampler
from torchvision import tv_tensors
from torchvision.transforms import v2

Backend = Literal["pil", "tensor"]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train torchvision's SSD or SSDLite, and print its pictures a second."""

    data: Path
    """VOC folder, every picture of whose split `train` has an object."""
    model: str = "ssdlite320_mobilenet_v3_large"
    """Name in torchvision.models.detection."""
    batch_size: int = 8
    """Over all processes."""
    epochs: int = 2
    loaders: int = 0
    """Loader processes."""
    channels_last: bool = False
    backend: Backend = "pil"
    """What is transformed: PIL's pictures or tensors."""
    threads: int = 2
    """Of torch."""
    device: str = "cpu"
    amp: bool = False
    """Mixed precision with bfloat16."""
    lr: float = 1e-3
    norm: Literal["batch", "held", "frozen"] = "batch"
    """Statistics of the batch; those of `weights`, γ and β training; FrozenBatchNorm2d."""
    weights: Path | None = None
    """State dict to start from."""
    save: Path | None = None
    """Where to write the state dict afterwards, statistics averaged over all that was seen."""


class Pictures(Dataset[Any]):
    """JPEG files with their boxes, as the reference script's transforms take them."""

    def __init__(self, root: Path, transforms: v2.Transform) -> None:
        """Reads the XML files of the split `train`."""
        ids = (root / "ImageSets" / "Main" / "train.txt").read_text(encoding="utf-8").split()
        self.files, self.targets, self.transforms = [], [], transforms
        trees = {i: ElementTree.parse(root / "Annotations" / f"{i}.xml") for i in ids}
        objects = [o for tree in trees.values() for o in tree.iterfind("object")]
        names = sorted({str(o.findtext("name")) for o in objects})
        self.num_classes = 1 + len(names)
        for image_id, tree in trees.items():
            boxes = [
                [float(o.findtext(f"bndbox/{c}", "")) for c in ("xmin", "ymin", "xmax", "ymax")]
                for o in tree.iterfind("object")
            ]
            labels = [1 + names.index(str(o.findtext("name"))) for o in tree.iterfind("object")]
            # As the script's reader of COCO does: boxes without area are left out.
            whole = [i for i, (x0, y0, x1, y1) in enumerate(boxes) if x1 > x0 and y1 > y0]
            self.files.append(next((root / "JPEGImages").glob(f"{image_id}.*")))
            self.targets.append(([boxes[i] for i in whole], [labels[i] for i in whole]))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        """Reads, decodes and varies a picture."""
        image = Image.open(self.files[index]).convert("RGB")
        boxes, labels = self.targets[index]
        target = {
            "boxes": tv_tensors.BoundingBoxes(
                torch.tensor(boxes), format="XYXY", canvas_size=(image.height, image.width)
            ),
            "labels": torch.tensor(labels),
        }
        return self.transforms(image, target)


def preset(model: str, backend: Backend) -> v2.Transform:
    """The data augmentation that the reference script's documentation names for the model."""
    steps: list[v2.Transform] = [v2.PILToTensor()] if backend == "tensor" else []
    if model.startswith("ssdlite"):
        steps += [v2.RandomIoUCrop(), v2.RandomHorizontalFlip(0.5)]
    else:
        fill = (123.0, 117.0, 104.0)
        steps += [v2.RandomPhotometricDistort(), v2.RandomZoomOut(fill=fill)]
        steps += [v2.RandomIoUCrop(), v2.RandomHorizontalFlip(0.5)]
    if backend == "pil":
        steps.append(v2.PILToTensor())
    steps += [v2.ToDtype(torch.float, scale=True), v2.SanitizeBoundingBoxes(), v2.ToPureTensor()]
    return v2.Compose(steps)


def as_lists(samples: list[Any]) -> tuple[Any, ...]:
    """Pictures and targets as two sequences: they differ in size."""
    return tuple(zip(*samples, strict=True))


def main(arguments: Arguments) -> list[float]:
    """Trains, alone or under torchrun; pictures a second of every epoch, over all processes."""
    torch.set_num_threads(arguments.threads)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size > 1:
        dist.init_process_group("gloo")
    pictures = Pictures(arguments.data, preset(arguments.model, arguments.backend))
    sampler = DistributedSampler(pictures) if world_size > 1 else RandomSampler(pictures)
    loader = DataLoader(
        pictures,
        batch_size=arguments.batch_size // world_size,
        sampler=sampler,
        num_workers=arguments.loaders,
        collate_fn=as_lists,
        persistent_workers=arguments.loaders > 0,
        drop_last=True,
    )
    detector = build(arguments, pictures.num_classes)
    device = torch.device(arguments.device)
    detector = detector.to(device)
    if arguments.channels_last:
        detector = detector.to(memory_format=torch.channels_last)
    network = DistributedDataParallel(detector) if world_size > 1 else detector
    optimizer = torch.optim.SGD(
        detector.parameters(), lr=arguments.lr, momentum=0.9, weight_decay=4e-5
    )
    rates = []
    for _ in range(arguments.epochs):
        started = time.perf_counter()
        for images, targets in loader:
            moved = [image.to(device) for image in images]
            wanted = [{name: t.to(device) for name, t in one.items()} for one in targets]
            with torch.autocast(device.type, torch.bfloat16, enabled=arguments.amp):
                loss = sum(network(moved, wanted).values())
            # Statistics of hardly trained weights are no bounds: then the loss may be anything.
            if not math.isfinite(loss.item()) and arguments.norm == "batch":
                raise SystemExit("the peer's loss is not finite")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        rates.append(len(loader) * arguments.batch_size / (time.perf_counter() - started))
    if arguments.save is not None:
        torch.save(detector.state_dict(), arguments.save)
    return rates


def build(arguments: Arguments, num_classes: int) -> nn.Module:
    """The detector in train mode."""
    options: dict[str, Any] = {}
    if arguments.norm == "frozen":
        options["norm_layer"] = torchvision.ops.FrozenBatchNorm2d
    detector: nn.Module = getattr(torchvision.models.detection, arguments.model)(
        weights=None, weights_backbone=None, num_classes=num_classes, **options
    ).train()
    if arguments.weights is not None:
        detector.load_state_dict(torch.load(arguments.weights))
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d) and arguments.norm == "held":
            module.eval()
        elif isinstance(module, nn.BatchNorm2d) and arguments.save is not None:
            module.momentum = None
    return detector


if __name__ == "__main__":
    rates = main(tyro.cli(Arguments))
    if int(os.environ.get("RANK", "0")) == 0:
        print(json.dumps(rates))
