"""Backbones: an image in, feature maps from fine to coarse out; timm's models or torchvision's."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from timm.layers import Format
from timm.models import PretrainedCfg
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.models import mobilenet_v3_large
from torchvision.models.detection import ssd as torchvision_ssd
from torchvision.models.detection import ssd300_vgg16, ssdlite320_mobilenet_v3_large
from torchvision.models.detection.ssdlite import _mobilenet_extractor
from torchvision.ops import Conv2dNormActivation

from ssd_dist.config import ModelConfig

TORCHVISION_DETECTORS = {
    "ssd300_vgg16": ssd300_vgg16,
    "ssdlite320_mobilenet_v3_large": ssdlite320_mobilenet_v3_large,
}


class FeaturePyramid(nn.Module):
    """Maps of a timm model through 1x1 convolutions, then stride-2 maps down to a few cells; each
    of the backbone's maps added to the next finer one where `top_down`.

    The new layers of a plain SSD carry no batch norm, so that they train alike with every choice
    of `norm`; the depthwise ones of SSDLite do, as in MobileNetV2.
    """

    def __init__(
        self,
        features: Any,
        num_channels: int,
        num_extra_maps: int,
        *,
        lite: bool,
        top_down: bool,
    ) -> None:
        super().__init__()
        self.top_down = top_down
        self.features = features  # Any: timm's type says nothing of feature_info
        self.permuted = _format(features) is Format.NHWC
        # Without an activation, as in FPN: behind a ReLU the coarsest map died on BCCD (1 % of it
        # above 0), and large objects were never found again.
        self.neck = nn.ModuleList(
            nn.Conv2d(channels, num_channels, kernel_size=1)
            for channels in features.feature_info.channels()
        )
        downsample = _separable_stride_2 if lite else _plain_stride_2
        self.extra = nn.ModuleList(downsample(num_channels) for _ in range(num_extra_maps))
        _initialise(self.neck, "linear")
        _initialise(self.extra, "relu")

    @torch.no_grad()
    def scale_neck(self, images: Tensor) -> None:
        """Divides the neck's weights by the root mean square of the maps they read.

        Pretrained features are of any size (EfficientNet-Lite0's stand at 7, 6 and 2); with maps of
        size 1 the head's first scores and offsets are as small as its weights mean them to be, and
        one learning rate suits all backbones (LSUV, Mishkin and Matas 2016). `images`: (B, 3, S, S)
        normalised; noise will do, its figures are within a factor of 1.5 of a photograph's.
        """
        was_training = self.training
        self.eval()
        for features, lateral in zip(self.features(images), self.neck, strict=True):
            lateral.weight /= features.square().mean().sqrt().clamp(min=1e-6)
        self.train(was_training)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, S, S) normalised images to one (B, `num_channels`, H, W) for each map."""
        maps = []
        for features, lateral in zip(self.features(images), self.neck, strict=True):
            maps.append(lateral(features.permute(0, 3, 1, 2) if self.permuted else features))
        if self.top_down:
            for finer in range(len(maps) - 2, -1, -1):
                above = F.interpolate(maps[finer + 1], size=maps[finer].shape[-2:])
                maps[finer] = maps[finer] + above
        for downsample in self.extra:
            maps.append(downsample(maps[-1]))
        return maps


def _initialise(layers: nn.Module, nonlinearity: Literal["linear", "relu"]) -> None:
    for module in layers.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity=nonlinearity)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build_timm_backbone(config: ModelConfig) -> FeaturePyramid:
    """The backbone of architectures `ssd` and `ssdlite`, randomly initialised.

    Raises ValueError for a model or a stride that does not exist, for a model that gives no maps at
    this image size, and for more extra maps than there are halvings left.
    """
    features = create_timm_features(config)
    shape = meta_outputs(features, config.image_size)[-1].shape
    last_size = shape[1] if _format(features) is Format.NHWC else shape[2]
    num_extra_maps = _num_extra_maps(last_size, config.num_extra_maps)
    return FeaturePyramid(
        features,
        config.neck_channels,
        num_extra_maps,
        lite=config.architecture == "ssdlite",
        top_down=config.top_down,
    )


def create_timm_features(
    config: ModelConfig, *, pretrained: bool = False, state_dict: dict[str, Tensor] | None = None
) -> Any:
    """The timm model `config.backbone` with outputs at `config.feature_strides`, and no more.

    Args:
        config: names the model, the strides and the image size.
        pretrained: take timm's ImageNet weights from the hub.
        state_dict: take these weights instead, named as timm names the whole classifier.

    Layers that no chosen output depends on are removed. Raises ValueError as
    `build_timm_backbone` does, and whatever the hub raises where weights can't be had.
    """
    name = config.backbone
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see timm.list_models()"
        raise ValueError(f"model.backbone: timm has no model {name!r}; {hint}")
    arguments: dict[str, Any] = {"features_only": True}
    if backbone_pixels(name).fixed_input_size:  # transformers with a table of positions
        arguments["img_size"] = config.image_size
    if config.drop_path:
        arguments["drop_path_rate"] = config.drop_path
    try:
        with torch.device("meta"):
            probe: Any = timm.create_model(name, **arguments)
        strides = probe.feature_info.reduction()
        meta_outputs(probe, config.image_size)
    except (RuntimeError, AssertionError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"model.backbone: {name!r} gives no feature maps at image_size {config.image_size} "
            f"({_first_line(error)}); choose a convolutional one or another size"
        ) from error
    missing = sorted(set(config.feature_strides) - set(strides))
    if missing or list(config.feature_strides) != sorted(set(config.feature_strides)):
        raise ValueError(
            f"model.feature_strides: {config.feature_strides} must be increasing strides of "
            f"{name}, which has {', '.join(str(s) for s in sorted(set(strides)))}"
        )
    # Of several maps with one stride the last is the one with most layers behind it.
    indices = probe.feature_info.out_indices
    at_stride = dict(zip(strides, indices, strict=True))
    arguments["out_indices"] = [at_stride[stride] for stride in config.feature_strides]
    if state_dict is not None:
        arguments["pretrained_cfg_overlay"] = {"state_dict": state_dict}
    features = timm.create_model(name, pretrained=pretrained or state_dict is not None, **arguments)
    _remove_unused(features, config.image_size)
    return features


def backbone_pixels(name: str) -> PretrainedCfg:
    """What timm says of a model's inputs: `mean`, `std` and `fixed_input_size`."""
    pixels = timm.get_pretrained_cfg(name)
    return PretrainedCfg() if pixels is None else pixels


def build_torchvision_detector(
    config: ModelConfig, num_classes: int
) -> tuple[torchvision_ssd.SSD, list[Tensor]]:
    """torchvision's detector of this architecture, randomly initialised, for its parts; and its
    feature maps of one image, as tensors without memory.

    Raises ValueError where the image is too small for its last maps.
    """
    detector = TORCHVISION_DETECTORS[config.architecture](
        weights=None, weights_backbone=None, num_classes=num_classes + 1
    )
    if config.architecture == "ssdlite320_mobilenet_v3_large" and config.weights == "imagenet":
        # Its reduced tail (MobileNetV3, table 6) has no ImageNet weights, and so torchvision
        # builds the full one where these are asked for.
        norm_layer = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
        classifier = mobilenet_v3_large(weights=None, norm_layer=norm_layer)
        detector.backbone = _mobilenet_extractor(classifier, 6, norm_layer)
    try:
        outputs = meta_outputs(detector.backbone, config.image_size)
    except RuntimeError as error:
        made_for = detector.transform.min_size[0]
        raise ValueError(
            f"model.image_size: {config.image_size} pixels leave nothing of the last maps of "
            f"{config.architecture}; use {made_for}, the size it was made for, or more"
        ) from error
    return detector, outputs


def meta_outputs(module: nn.Module, image_size: int) -> list[Tensor]:
    """The feature maps of one image as tensors without memory: their shapes cost no arithmetic."""
    was_training = module.training
    module.eval()
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    on_meta = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    images = torch.empty(1, 3, image_size, image_size, device="meta")
    try:
        with torch.no_grad():
            return as_list(functional_call(module, on_meta, (images,)))
    finally:
        module.train(was_training)


def as_list(maps: Iterable[Tensor] | dict[str, Tensor]) -> list[Tensor]:
    """Feature maps in order: torchvision's backbones name them, timm's don't."""
    return list(maps.values()) if isinstance(maps, dict) else list(maps)


def _format(features: nn.Module) -> Format:
    return Format(getattr(features, "output_fmt", Format.NCHW))


def _plain_stride_2(num_channels: int) -> nn.Module:
    # SiLU lets a little gradient through everywhere, so that no map can die.
    return Conv2dNormActivation(
        num_channels, num_channels, stride=2, norm_layer=None, activation_layer=nn.SiLU
    )


def _separable_stride_2(num_channels: int) -> nn.Module:
    block = partial(Conv2dNormActivation, num_channels, num_channels, activation_layer=nn.ReLU6)
    return nn.Sequential(block(stride=2, groups=num_channels), block(kernel_size=1))


def _num_extra_maps(last_size: int, asked: int | None) -> int:
    """Halvings of a side of `last_size` cells to 1 or 2 cells, or as many as asked for."""
    possible = math.ceil(math.log2(last_size))
    if asked is None:
        return max(0, possible - 1)
    if asked > possible:
        raise ValueError(
            f"model.num_extra_maps: {asked} is more than the {possible} halvings between the "
            f"backbone's last map of {last_size} cells a side and a single cell"
        )
    return asked


def use_plain_activations(model: nn.Module) -> None:
    """Turns in-place activations other than ReLU into plain ones, which takes less time and no more
    memory: the others' gradient needs their input, of which autograd would keep a clone."""
    for module in model.modules():
        if getattr(module, "inplace", False) and not isinstance(module, nn.ReLU):
            setattr(module, "inplace", False)  # noqa: B010 - to mypy any attribute is a module


@torch.enable_grad()
def _remove_unused(features: nn.Module, image_size: int) -> None:
    """Replaces by identities the modules whose parameters reach none of the outputs.

    They would cost time, and DistributedDataParallel waits for their gradients.
    """
    features.eval()
    on_meta = {
        name: torch.empty_like(tensor, device="meta", requires_grad=True)
        for name, tensor in features.named_parameters()
    } | {name: torch.empty_like(tensor, device="meta") for name, tensor in features.named_buffers()}
    images = torch.empty(1, 3, image_size, image_size, device="meta")
    outputs = functional_call(features, on_meta, (images,))
    names = [name for name, _ in features.named_parameters()]
    gradients = torch.autograd.grad(
        [output.sum() for output in outputs], [on_meta[n] for n in names], allow_unused=True
    )
    used = [name for name, gradient in zip(names, gradients, strict=True) if gradient is not None]
    features.train()
    _replace_unused(features, "", names, used)


def _replace_unused(
    module: nn.Module, prefix: str, names: Sequence[str], used: Sequence[str]
) -> None:
    for child_name, child in list(module.named_children()):
        path = f"{prefix}{child_name}."
        if any(name.startswith(path) for name in used):
            _replace_unused(child, path, names, used)
        elif any(name.startswith(path) for name in names):
            setattr(module, child_name, nn.Identity())


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".")
