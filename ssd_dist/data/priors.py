"""`python -m ssd_dist.data priors`: sizes and aspect ratios that fit a data set's boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

# What computes is imported where it is needed: a question for help is answered without torch.

if TYPE_CHECKING:
    from ssd_dist.config import Config, ModelConfig
    from ssd_dist.data.coverage import Coverage
    from ssd_dist.data.screen import Screen
    from ssd_dist.structures import Split


@dataclass(frozen=True, kw_only=True)
class PriorsArguments:
    """Suggest sizes and aspect ratios of the priors from the training boxes, and tell which objects
    no prior can match, before and after. `model.priors: fitted` in a configuration takes these
    numbers when a training starts."""

    data: Annotated[str, tyro.conf.Positional]
    """A data set, as a training's `--data`."""
    config: Path | None = None
    """Configuration whose feature maps and splits are meant; without it, the default ones."""
    format: str | None = None
    """`voc`, `coco` or `yolo`; without it, as the configuration says, or by looking at the folder.
    """


def priors(arguments: PriorsArguments, screen: Screen) -> None:
    """Prints what to write into a configuration, and tables of before and after.

    Raises FileNotFoundError or ValueError for data or a configuration that can't be read.
    """
    from dataclasses import replace

    from ssd_dist.config import Config, load_config, replace_at
    from ssd_dist.data.fitted_priors import fitted_model
    from ssd_dist.data.readers import split_names
    from ssd_dist.data.sources import fetch_shown

    config = Config() if arguments.config is None else load_config(arguments.config)
    if arguments.format is not None:
        config = replace_at(config, {"data.format": arguments.format})
    fetch_shown(arguments.data, screen)
    train = _open(config, arguments.data, config.data.train_split)
    fitted = fitted_model(config.model, train.annotations)
    given = replace(config.model, priors="given")
    before, after = _measure(config, given, train), _measure(config, fitted, train)
    screen.heading(
        f"Priors that fit {len(after.labels):,} objects of the split {train.name}, for a network "
        f"of {after.image_size} px with {after.num_priors:,} priors"
    )
    screen.line("\nmodel:")
    screen.line(f"  prior_scales: {_numbers(fitted.prior_scales or ())}")
    if fitted.architecture in ("ssd", "ssdlite"):
        screen.line(f"  aspect_ratios: {_numbers(fitted.aspect_ratios)}")
    screen.line("")
    _print(f"{train.name}, to which they are fitted", before, after, train.class_names, screen)
    if config.data.val_split in split_names(arguments.data, config.data.format):
        val = _open(config, arguments.data, config.data.val_split)
        before, after = _measure(config, given, val), _measure(config, fitted, val)
        _print(f"{val.name}, which had no part in it", before, after, val.class_names, screen)


def _open(config: Config, data: str, split: str) -> Split:
    from ssd_dist.data.readers import open_split

    return open_split(data, split, config.data.class_names, data_format=config.data.format)


def _measure(config: Config, model: ModelConfig, split: Split) -> Coverage:
    from ssd_dist.data.coverage import measure_coverage
    from ssd_dist.model.ssd import build_model

    built = build_model(model, len(split.class_names), load_weights=False)
    return measure_coverage(
        split.annotations,
        built.priors_cxcywh,
        image_size=built.image_size,
        iou_threshold=config.loss.iou_threshold,
    )


def _print(
    title: str, before: Coverage, after: Coverage, class_names: Sequence[str], screen: Screen
) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ssd_dist.data.coverage import by_class, by_coco_size
    from ssd_dist.data.problems import printable

    table = Table(title=escape(title), title_justify="left")
    table.add_column("")
    for column in ("objects", "no prior before", "after", "mean best IoU before", "after"):
        table.add_column(column, justify="right")
    rows = zip(
        [*by_coco_size(before), *by_class(before, class_names)],
        [*by_coco_size(after), *by_class(after, class_names)],
        strict=True,
    )
    for old, new in rows:
        if not old.num_objects:
            continue
        table.add_row(
            escape(printable(old.name)),
            f"{old.num_objects:,}",
            f"{old.num_unmatched:,}",
            f"{new.num_unmatched:,}",
            f"{old.mean_best_iou:.3f}",
            f"{new.mean_best_iou:.3f}",
        )
    screen.console.print(table)


def _numbers(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"
