"""The detector: images to offsets and class scores at every prior; no loss and no NMS."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ssd_dist.config import ModelConfig
from ssd_dist.model.backbones import (
    TORCHVISION_DETECTORS,
    as_list,
    backbone_pixels,
    build_timm_backbone,
    build_torchvision_detector,
    meta_outputs,
    use_plain_activations,
)
from ssd_dist.model.heads import Head, build_head, initialise_head, predict
from ssd_dist.model.norm import apply_norm, has_batch_norm, hold_statistics
from ssd_dist.model.weights import load_weights as load_initial_weights
from ssd_dist.ops.priors import evenly_spaced_scales, make_priors, num_priors_per_cell

logger = logging.getLogger(__name__)


class SSD(nn.Module):
    """A backbone that gives feature maps, and a head that reads each of them.

    The parameters are those of `backbone` and `head`, by torchvision's names where the parts are
    torchvision's, so that its state dicts load as they are. What follows from the configuration
    (priors, mean, standard deviation) is not in the state dict.
    """

    priors_cxcywh: Tensor
    """(P, 4) float32, relative (0 to 1), in the order of the outputs."""
    pixel_scale: Tensor
    pixel_offset: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        head: Head,
        priors_cxcywh: Tensor,
        *,
        num_classes: int,
        image_size: int,
        feature_sizes: Sequence[tuple[int, int]],
        num_priors_per_cell: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        dropout: float = 0.0,
    ) -> None:
        """`mean` and `std` are of red, green, blue in 0…1; the other arguments become attributes
        of their names. `num_classes` is C, background not counted."""
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.dropout = nn.Dropout2d(dropout) if dropout else nn.Identity()
        self.num_classes = num_classes
        self.image_size = image_size
        self.feature_sizes = tuple(feature_sizes)
        self.num_priors_per_cell = tuple(num_priors_per_cell)
        self.norm_frozen = False
        self.first_weights: str | None = None
        """What was loaded before training, and what was not; None: nothing was."""
        self.register_buffer("priors_cxcywh", priors_cxcywh, persistent=False)
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64)).view(1, 3, 1, 1)
        offset = -255 * torch.tensor(mean, dtype=torch.float64).view(1, 3, 1, 1) * scale
        self.register_buffer("pixel_scale", scale.float(), persistent=False)
        self.register_buffer("pixel_offset", offset.float(), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded offsets and class scores before softmax, background first.

        Args:
            images: (B, 3, S, S), uint8 or float, 0…255, RGB.

        Returns:
            loc (B, P, 4) and conf (B, P, C + 1), float32 under autocast too.
        """
        maps = [self.dropout(each) for each in as_list(self.backbone(self.normalise(images)))]
        loc = predict(self.head.regression_head.module_list, maps, 4)
        conf = predict(self.head.classification_head.module_list, maps, self.num_classes + 1)
        return loc.float(), conf.float()

    def normalise(self, images: Tensor) -> Tensor:
        """Pixels 0…255, uint8 or float, to (pixel / 255 - mean) / std, float."""
        return torch.addcmul(self.pixel_offset, images.to(self.pixel_scale.dtype), self.pixel_scale)

    def train(self, mode: bool = True) -> SSD:
        """As ever, except that batch norm stays in eval mode where `norm_frozen`."""
        super().train(mode)
        if self.norm_frozen:
            hold_statistics(self)
        return self


def build_model(
    config: ModelConfig,
    num_classes: int,
    *,
    load_weights: bool = True,
    class_names: Sequence[str] | None = None,
) -> SSD:
    """The model of a configuration, in train mode: built, weights loaded, norm applied.

    Args:
        config: architecture, image size, priors, weights and norm.
        num_classes: C, background not counted.
        load_weights: False to rebuild a model whose state dict is then loaded: nothing is fetched.
        class_names: label 1 first, by which weights of other classes keep what they share; None:
            classes are told by their number alone.

    Raises ValueError for what does not exist or does not fit, naming the field.
    """
    if config.priors == "fitted":
        raise ValueError(
            "model.priors: fitted takes training boxes to fit: train with it, or take the numbers "
            "that `python -m ssd_dist.data priors` prints"
        )
    if num_classes < 1:
        raise ValueError(f"a detector needs at least one class, not {num_classes}")
    if config.architecture in TORCHVISION_DETECTORS:
        model = _torchvision_ssd(config, num_classes)
    else:
        model = _timm_ssd(config, num_classes)
    use_plain_activations(model)
    initialise_head(model.head, num_classes, config.object_probability)
    if load_weights:
        if config.weights != "none":
            report = load_initial_weights(model, config, class_names)
            model.first_weights = str(report)
        elif config.norm in ("frozen", "none") and has_batch_norm(model):
            logger.warning(
                "model.norm %r on random weights normalises by no statistics: "
                "training may not get going; choose batch, or pretrained weights",
                config.norm,
            )
    apply_norm(model, config.norm)
    freeze_early_layers(model.backbone, config)
    return model


def freeze_early_layers(backbone: nn.Module, config: ModelConfig) -> None:
    """Takes the layers of stride `config.frozen_stride` and less out of training.

    Strides grow on the way through a backbone, so the backward pass ends at the first layer that
    trains.
    """
    if config.frozen_stride == 0:
        return
    early: list[nn.Module] = []

    def look_at(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        if output.ndim == 4 and output.shape[-2] * config.frozen_stride >= config.image_size:
            early.append(module)

    features = cast(nn.Module, backbone.features)  # without the new layers behind it
    layers = [m for m in features.modules() if any(True for _ in m.parameters(recurse=False))]
    hooks = [layer.register_forward_hook(look_at) for layer in layers]
    meta_outputs(backbone, config.image_size)
    for hook in hooks:
        hook.remove()
    for module in early:
        module.requires_grad_(False)


def _timm_ssd(config: ModelConfig, num_classes: int) -> SSD:
    backbone = build_timm_backbone(config)
    shapes = [tuple(output.shape) for output in meta_outputs(backbone, config.image_size)]
    feature_sizes = [(rows, columns) for _, _, rows, columns in shapes]
    ratios = [config.aspect_ratios] * len(shapes)
    scales = config.prior_scales or evenly_spaced_scales(
        len(shapes), config.min_scale, config.max_scale
    )
    head = build_head(
        config.architecture == "ssdlite",
        [channels for _, channels, _, _ in shapes],
        num_priors_per_cell(ratios),
        num_classes,
    )
    pixels = backbone_pixels(config.backbone)
    return SSD(
        backbone,
        head,
        make_priors(feature_sizes, scales, ratios),
        num_classes=num_classes,
        image_size=config.image_size,
        feature_sizes=feature_sizes,
        num_priors_per_cell=num_priors_per_cell(ratios),
        mean=pixels.mean,
        std=pixels.std,
        dropout=config.dropout,
    )


def _torchvision_ssd(config: ModelConfig, num_classes: int) -> SSD:
    """torchvision's parts, and its priors unless the configuration gives sizes."""
    detector, outputs = build_torchvision_detector(config, num_classes)
    feature_sizes = [(output.shape[2], output.shape[3]) for output in outputs]
    generator = detector.anchor_generator
    # Its steps in pixels belong to the size it was made for; elsewhere the cells divide the image.
    made_for = detector.transform.min_size[0]
    steps = generator.steps if config.image_size == made_for else None
    priors = make_priors(
        feature_sizes,
        config.prior_scales or generator.scales,
        generator.aspect_ratios,
        steps=steps,
        image_size=None if steps is None else config.image_size,
    )
    return SSD(
        detector.backbone,
        detector.head,
        priors,
        num_classes=num_classes,
        image_size=config.image_size,
        feature_sizes=feature_sizes,
        num_priors_per_cell=generator.num_anchors_per_location(),
        mean=detector.transform.image_mean,
        std=detector.transform.image_std,
        dropout=config.dropout,
    )
