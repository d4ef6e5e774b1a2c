"""A page of a data set's pictures with their boxes, and figures of its objects by class, size and
aspect, with the share that the model's priors can reach."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssd_dist.config import Config, load_config
from ssd_dist.data.coverage import Coverage, by_class, by_coco_size, measure_coverage
from ssd_dist.data.fitted_priors import fitted_model
from ssd_dist.data.readers import open_split, split_names
from ssd_dist.data.screen import Screen
from ssd_dist.data.show import ShowArguments
from ssd_dist.data.signed_urls import publishable
from ssd_dist.data.sources import fetch_shown
from ssd_dist.evaluation.scene import DrawnBox
from ssd_dist.model.ssd import build_model
from ssd_dist.report.data_plots import aspect_plot, size_plot
from ssd_dist.report.pictures import jpeg_uri
from ssd_dist.report.render import environment
from ssd_dist.report.svg import NUM_SERIES
from ssd_dist.structures import Annotation, Split


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture with its objects."""

    name: str
    width: int
    height: int
    jpeg_uri: str
    objects: tuple[DrawnBox, ...]


@dataclass(frozen=True, slots=True)
class ShownSplit:
    """A split: its counts, and some of its pictures."""

    name: str
    num_pictures: int
    num_objects: int
    num_difficult: int
    num_empty: int
    pictures: tuple[ShownPicture, ...]


def show(arguments: ShowArguments, screen: Screen) -> None:
    """Reads the data set as a training does and writes the page.

    Raises FileNotFoundError or ValueError for data or a configuration that a training would refuse.
    """
    if arguments.out.is_dir():
        raise ValueError(f"--out {arguments.out} is a folder; give a file")
    if arguments.pictures < 0:
        raise ValueError(f"--pictures must be 0 or more, not {arguments.pictures}")
    config = Config() if arguments.config is None else load_config(arguments.config)
    data_format = arguments.format or config.data.format
    fetch_shown(arguments.data, screen)
    names = config.data.class_names
    splits = [
        open_split(arguments.data, name, names, data_format=data_format)
        for name in arguments.split or split_names(arguments.data, data_format)
    ]
    text = render_data_page(publishable(arguments.data), splits, config, arguments.pictures)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    beside = arguments.out.with_name(f".{arguments.out.name}.{uuid.uuid4().hex}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, arguments.out)  # noqa: PTH105 - atomic, on Windows too
    finally:
        beside.unlink(missing_ok=True)
    screen.heading(f"Written: {arguments.out}")


def render_data_page(data: str, splits: Sequence[Split], config: Config, num_pictures: int) -> str:
    """The page as one text, with style, plots and pictures inside; what comes from the user is
    escaped.

    Args:
        data: what the user calls it.
        splits: at least one, of the same classes.
        config: whose model's priors are compared with the objects.
        num_pictures: at most so many of each split.

    Raises what `read_image` raises.
    """
    annotations = _each_once(splits)
    class_names = splits[0].class_names
    coverage = _measure(annotations, config, len(class_names))
    aspects = _aspects(annotations)
    return (
        environment()
        .get_template("data.html")
        .render(
            name=Path(data).name or data,
            splits=[_shown(split, num_pictures) for split in splits],
            class_names=class_names,
            num_series=NUM_SERIES,
            coverage=coverage,
            num_reached=len(coverage.labels) - int(coverage.unmatched.sum()),
            by_class=by_class(coverage, class_names),
            by_size=by_coco_size(coverage),
            size_plot=size_plot(coverage.input_side, ~coverage.unmatched),
            aspect_plot=aspect_plot(aspects, ~coverage.unmatched),
            num_pictures=len(annotations),
        )
    )


def _each_once(splits: Sequence[Split]) -> list[Annotation]:
    """Of all splits; a picture of several, as all of VOC's trainval are, once."""
    found: dict[str, Annotation] = {}
    for split in splits:
        paths = getattr(split, "picture_paths", None)
        for i, annotation in enumerate(split.annotations):
            found.setdefault(str(paths[i]) if paths else annotation.image_id, annotation)
    return list(found.values())


def _measure(annotations: Sequence[Annotation], config: Config, num_classes: int) -> Coverage:

    model_config = config.model
    if model_config.priors == "fitted":
        model_config = fitted_model(model_config, annotations)
    model = build_model(model_config, num_classes, load_weights=False)
    return measure_coverage(
        annotations,
        model.priors_cxcywh,
        image_size=model.image_size,
        iou_threshold=config.loss.iou_threshold,
    )


def _aspects(annotations: Sequence[Annotation]) -> list[float]:
    """Width by height of each object that counts, as the network sees it, squeezed to a square; in
    the order of `measure_coverage`."""
    return [
        float((x2 - x1) / annotation.width / ((y2 - y1) / annotation.height))
        for annotation in annotations
        for x1, y1, x2, y2 in annotation.boxes_xyxy[~annotation.difficult].tolist()
    ]


def _shown(split: Split, most: int) -> ShownSplit:
    count = len(split.annotations)
    places = list(dict.fromkeys(i * count // most for i in range(most))) if most and count else []
    return ShownSplit(
        name=split.name,
        num_pictures=count,
        num_objects=sum(len(each.labels) for each in split.annotations),
        num_difficult=int(sum(each.difficult.sum() for each in split.annotations)),
        num_empty=sum(len(each.labels) == 0 for each in split.annotations),
        pictures=tuple(_picture(split, place) for place in places),
    )


def _picture(split: Split, index: int) -> ShownPicture:

    annotation = split.annotations[index]
    paths = getattr(split, "picture_paths", None)
    rows = zip(
        annotation.boxes_xyxy.tolist(),
        annotation.labels.tolist(),
        annotation.difficult.tolist(),
        strict=True,
    )
    return ShownPicture(
        name=paths[index].name if paths else annotation.image_id,
        width=annotation.width,
        height=annotation.height,
        jpeg_uri=jpeg_uri(split.read_image(index)),
        objects=tuple(
            DrawnBox(
                x=round(x1, 1),
                y=round(y1, 1),
                width=round(x2 - x1, 1),
                height=round(y2 - y1, 1),
                class_index=label - 1,
                text=split.class_names[label - 1],
                mistake=False,
                difficult=difficult,
            )
            for (x1, y1, x2, y2), label, difficult in rows
        ),
    )
