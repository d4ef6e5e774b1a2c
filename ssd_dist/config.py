"""The whole configuration of a training and of a search, checked where it is made.

One YAML file is one :class:`Config`. Every field has a default, so a file names only what it
changes; a field that does not exist, or a value out of range, is refused with its place. The three
hyperparameters that the search is about stand at the top level.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from ssd_dist.search_config import STRICT, Count, Range, SearchConfig

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]

Architecture = Literal["ssd300_vgg16", "ssdlite320_mobilenet_v3_large", "ssd", "ssdlite"]
OWN_SIZES = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}
"""Side of the input that torchvision's detectors were made for, in pixels."""
Norm = Literal["batch", "frozen", "sync", "none"]
SYNC_NEEDS_GPUS = "model.norm: sync needs GPUs; on CPUs use batch, frozen or none"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """The network: which feature maps, which heads, which priors, which weights to start from."""

    architecture: Architecture = "ssd"
    """torchvision's two detectors by their names, or `ssd` / `ssdlite` heads over `backbone`."""
    backbone: str = "tf_efficientnet_lite0"
    """Any timm model with `features_only` (architectures `ssd` and `ssdlite` only)."""
    image_size: Annotated[int, Field(ge=32, le=4096)] = 224
    """Side of the square input, in pixels; torchvision's two detectors have their own unless said
    otherwise, 300 and 320."""
    feature_strides: tuple[Count, ...] = (8, 16, 32)
    """Strides of the backbone's maps that carry priors (`ssd` and `ssdlite`)."""
    neck_channels: Count = 96
    """Channels of every feature map after the 1x1 convolutions (`ssd` and `ssdlite`)."""
    top_down: bool = False
    """Adds each map, enlarged, to the next finer one (as in FPN, Lin et al. 2017): small objects
    are then seen with the knowledge of the deeper layers (`ssd` and `ssdlite`)."""
    num_extra_maps: Annotated[int, Field(ge=0, le=8)] | None = None
    """Stride-2 maps after the backbone's last; null: as many as it takes to end at 1 or 2 cells."""
    priors: Literal["given", "fitted"] = "given"
    """`fitted`: a job that trains works out `prior_scales` and, where the heads are not
    torchvision's, `aspect_ratios` from the training boxes when it starts, and goes on with these
    numbers as though they had been given (`python -m ssd_dist.data priors` shows them)."""
    prior_scales: tuple[Positive, ...] | None = None
    """One size a map, relative to the image side, and optionally one more for the last map's
    in-between prior; null: spread evenly from `min_scale` to `max_scale` (SSD paper, 2.2)."""
    min_scale: Probability = 0.07
    max_scale: Positive = 0.9
    aspect_ratios: tuple[Positive, ...] = (2.0, 3.0)
    """Aspect ratios of the priors beside 1; each stands for itself and its inverse."""
    norm: Norm = "batch"
    """`batch`: statistics of each worker's batch; `frozen`: stored statistics, affine part trained;
    `sync`: statistics of all workers' batches (GPU); `none`: folded into the convolutions."""
    weights: str = "none"
    """`none`, `imagenet` (the backbone; from an installed package or the hub), `coco` (of
    torchvision's detectors, from the hub), or a file (.pth, .safetensors) or checkpoint folder."""
    frozen_stride: Annotated[int, Field(ge=0)] = 0
    """Layers whose output has at most this stride keep their first weights: the early layers, whose
    large maps take most of the time, are general enough after ImageNet. 0: all layers train."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Stochastic depth (Huang et al. 2016): training leaves out the backbone's last residual block
    with this probability, earlier ones with less (`ssd` and `ssdlite`). Against overfitting."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability with which training leaves out each channel of the maps that the heads read."""
    object_probability: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Probability of an object at every prior before training: sets the background bias."""

    @model_validator(mode="before")
    @classmethod
    def _at_its_own_size(cls, given: Any) -> Any:
        fields = given.kwargs or {} if isinstance(given, ArgsKwargs) else given
        if isinstance(fields, dict) and "image_size" not in fields:
            own = [size for name, size in OWN_SIZES.items() if name == fields.get("architecture")]
            fields = fields | {"image_size": own[0]} if own else fields
        return ArgsKwargs(given.args, fields) if isinstance(given, ArgsKwargs) else fields


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmentationConfig:
    """The SSD paper's augmentation (section 2.2): each part has its probability, 0 turns it off."""

    photometric: Probability = 0.5
    """Probability of each of brightness, contrast, saturation, hue (torchvision's photometric
    distortion)."""
    photometric_strength: Probability = 1.0
    """1: the SSD paper's ranges; 0: no change."""
    zoom_out: Probability = 0.5
    max_zoom_out: Annotated[float, Field(ge=1)] = 4.0
    """Largest side of the canvas, in sides of the picture."""
    iou_crop: Probability = 0.85
    min_crop_scale: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Smallest side of a crop, in sides of the picture."""
    horizontal_flip: Probability = 0.5
    vertical_flip: Probability = 0.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """Which splits and classes, and how pictures are varied and loaded."""

    format: str = "auto"
    """`auto`: told by looking at the folder; or `voc`, `coco`, `yolo`."""
    train_split: str = "train"
    val_split: str = "val"
    class_names: tuple[str, ...] | None = None
    """Null: the classes found in the annotations of all splits, sorted by name."""
    augmentation: AugmentationConfig = AugmentationConfig()
    num_loader_processes: Annotated[int, Field(ge=0, le=64)] | None = None
    """Loader processes a worker; null: 0 on a CPU, 4 on a GPU."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LossConfig:
    """Matching and Eq. 1, beside alpha."""

    iou_threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A prior is positive from this IoU on."""
    neg_pos_ratio: Positive = 3.0
    """Hardest negatives for each positive, chosen in each image."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OptimizerConfig:
    """The optimizer and its schedule, beside the learning rate."""

    name: Literal["sgd", "adamw"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD's momentum, or AdamW's beta1."""
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: NonNegative = 1.0
    """Epochs (fractions allowed) over which the learning rate grows linearly from 0."""
    gradient_clip: Positive | None = 10.0
    """Largest norm of the gradient; null: no clipping."""
    backbone_lr_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of the feature extractor relative to that of the layers after it: below 1 where
    the one is pretrained and the others start from random weights."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the moving average of the weights that validation uses; 0: no average."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PostprocessConfig:
    """From the network's output to detections."""

    score_threshold: Probability = 0.01
    nms_iou_threshold: Annotated[float, Field(gt=0, le=1)] = 0.45
    max_candidates: Count = 400
    """Highest-scoring (prior, class) pairs of an image that enter non-maximum suppression."""
    candidates_of: Literal["image", "class"] = "image"
    """What `max_candidates` counts for: an image, or each class of an image, as in torchvision's
    detectors."""
    max_detections: Count = 200
    """Detections kept of an image."""
    mirror: Literal["none", "horizontal", "both"] = "none"
    """Averages the network's output over the picture's mirror images: steadier where left and right
    (`both`: and up and down) mean nothing, at twice (four times) the time."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config:
    """A training, complete; with `search`, a search over trainings."""

    alpha: NonNegative = 1.0
    """Weight of the localisation loss (Eq. 1)."""
    l2_lambda: NonNegative = 2.5e-4
    """Strength of the L2 term (Eq. 2); equals a weight decay of 2 lambda."""
    lr: Positive = 1e-2
    """Peak learning rate."""
    epochs: Count = 20
    global_batch_size: Count = 16
    """Pictures a step, over all workers."""
    accumulation: Count = 1
    """Parts in which a worker's share of the batch meets the network, one after the other: memory
    for one part, the gradient of all. The same result unless batch normalisation takes its
    statistics from the batch: then each part has its own."""
    seed: Annotated[int, Field(ge=0)] = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 autocast on GPUs that have it, fp32 elsewhere."""
    channels_last: bool = True
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    postprocess: PostprocessConfig = PostprocessConfig()
    search: SearchConfig = SearchConfig()

    def __post_init__(self) -> None:
        for path, values in self.search.space.items():
            self._check_searchable(path, values)

    def _check_searchable(self, path: str, values: Range) -> None:
        if path in ("epochs", "search") or path.startswith("search."):
            raise ValueError(f"search.space: {path!r} describes the search; it can't be searched")
        for value in values.examples():
            try:
                replace_at(dataclasses.replace(self, search=SearchConfig(space={})), {path: value})
            except ValueError as error:
                raise ValueError(f"search.space[{path!r}] admits {value!r}: {error}") from error


_ADAPTER: TypeAdapter[Config] = TypeAdapter(Config)


def to_mapping(config: Config) -> dict[str, Any]:
    """Plain dicts, lists and scalars; `from_mapping` gives the same configuration back."""
    mapping: dict[str, Any] = _ADAPTER.dump_python(config, mode="json")
    return mapping


def from_mapping(mapping: Mapping[str, Any], source: str = "configuration") -> Config:
    """The configuration of a mapping. Raises ValueError naming `source`, the field and the rule."""
    if not isinstance(mapping, Mapping):
        raise ValueError(f"{source}: expected fields and their values, got {mapping!r}")
    try:
        return _ADAPTER.validate_python(dict(mapping))
    except ValidationError as error:
        raise ValueError(f"{source}: {_explain(error)}") from None


def load_config(path: str | Path) -> Config:
    """Reads a YAML file. Raises FileNotFoundError or ValueError, naming the file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no configuration file {path}")
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as YAML: {error}") from None
    return from_mapping({} if mapping is None else mapping, source=str(path))


def replace_at(config: Config, changes: Mapping[str, Any]) -> Config:
    """A copy with other values at dotted paths, `{"lr": 0.1, "loss.neg_pos_ratio": 5}`.

    Raises ValueError for a path that does not exist or a value out of its range.
    """
    mapping = to_mapping(config)
    for path, value in changes.items():
        *parents, leaf = path.split(".")
        node = mapping
        for name in parents:
            node = node.get(name) if isinstance(node, dict) else None  # type: ignore[assignment]
        if not isinstance(node, dict) or leaf not in node:
            raise ValueError(f"no field {path!r} in the configuration")
        node[leaf] = value
    return from_mapping(mapping)


def value_at(config: Config, path: str) -> Any:
    """The value at a dotted path. Raises ValueError where there is none."""
    node: Any = to_mapping(config)
    for name in path.split("."):
        if not isinstance(node, dict) or name not in node:
            raise ValueError(f"no field {path!r} in the configuration")
        node = node[name]
    return node


def _explain(error: ValidationError) -> str:
    """One clause for each mistake: where, what was given, what is allowed."""
    clauses = []
    for mistake in error.errors():
        where = ".".join(str(part) for part in mistake["loc"])
        if mistake["type"] == "unexpected_keyword_argument":
            clauses.append(f"unknown field {where!r}{_suggestion(where)}")
            continue
        message = mistake["msg"].removeprefix("Value error, ")
        given = mistake["input"]
        shown = f", not {given!r}" if isinstance(given, str | int | float | None) else ""
        clauses.append(f"{where + ': ' if where else ''}{message}{shown}")
    return "; ".join(clauses)


def _suggestion(path: str) -> str:
    known = _field_paths(to_mapping(Config()))
    close = difflib.get_close_matches(path, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _field_paths(mapping: Mapping[str, Any], prefix: str = "") -> list[str]:
    paths = []
    for name, value in mapping.items():
        paths.append(prefix + name)
        if isinstance(value, dict):
            paths += _field_paths(value, f"{prefix}{name}.")
    return paths
