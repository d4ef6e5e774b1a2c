"""`python -m ssd_dist.data check`: all that is wrong with a data set, before a training does."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ssd_dist.data.signed_urls import publishable

# What computes is imported where it is needed: a question for help is answered without torch.

if TYPE_CHECKING:
    from rich.table import Table

    from ssd_dist.config import Config
    from ssd_dist.data.coverage import Coverage, CoverageRow
    from ssd_dist.data.inspection import Inspection
    from ssd_dist.data.screen import Screen


@dataclass(frozen=True, kw_only=True)
class CheckArguments:
    """Read a whole data set as a training would, list every problem with its file and line and how
    it is treated, and tell which objects no prior of the model can match. The exit status is 1 if
    a training would refuse something."""

    root: Annotated[str, tyro.conf.Positional]
    """A data set, as a training's `--data`; or a COCO annotation file, without its pictures."""
    format: str | None = None
    """`voc`, `coco` or `yolo`; without it, as the configuration says, or by looking at the folder.
    """
    split: tuple[str, ...] = ()
    """Which splits; without it, all there are."""
    config: Path | None = None
    """Configuration whose classes and priors are meant; without it, the default ones."""
    json: Path | None = None
    """File for all that is found, for other programs."""
    coverage: bool = True
    """Compare the objects with the model's priors; `--no-coverage` leaves it out."""


def check(arguments: CheckArguments, screen: Screen) -> None:
    """Prints what is found, and writes it.

    Raises ValueError, at the end, if a training would refuse something; FileNotFoundError or
    ValueError at once for arguments that mean nothing.
    """
    from ssd_dist.config import Config, load_config
    from ssd_dist.data.inspection import inspect_data, inspect_ground_truth
    from ssd_dist.data.readers import split_names
    from ssd_dist.data.sources import fetch_shown
    from ssd_dist.experiment import write_json

    if arguments.json is not None and arguments.json.is_dir():
        raise ValueError(f"--json {arguments.json} is a folder; give a file")
    config = Config() if arguments.config is None else load_config(arguments.config)
    data_format = arguments.format or config.data.format
    fetch_shown(arguments.root, screen)
    if arguments.root != "synthetic" and Path(arguments.root).is_file():
        inspection = inspect_ground_truth(Path(arguments.root))
    else:
        splits = arguments.split or tuple(split_names(arguments.root, data_format))
        if arguments.config is not None and not arguments.split:
            splits = tuple(dict.fromkeys((config.data.train_split, config.data.val_split, *splits)))
        with screen.bar("pictures"):
            inspection = inspect_data(
                arguments.root,
                splits,
                config.data.class_names,
                screen.advance,
                data_format=data_format,
            )
    coverage = _measure(inspection, config) if arguments.coverage else None
    _print(arguments.root, inspection, coverage, screen)
    if arguments.json is not None:
        write_json(arguments.json, _content(arguments.root, inspection, coverage))
    if inspection.num_refused:
        first = inspection.problems[0]
        more = inspection.num_refused - 1
        raise ValueError(
            f"a training would refuse this data set: {first}"
            + (f" (and {more:,} more problems that are refused)" if more else "")
        )


def _measure(inspection: Inspection, config: Config) -> Coverage | None:
    """None where there are no classes, or sizes of pictures are not known (COCO allows it)."""
    from ssd_dist.data.coverage import measure_coverage
    from ssd_dist.data.fitted_priors import fitted_model
    from ssd_dist.model.ssd import build_model

    known = all(each.width > 0 and each.height > 0 for each in inspection.annotations)
    if not inspection.class_names or not known:
        return None
    model_config = config.model
    if model_config.priors == "fitted":
        model_config = fitted_model(model_config, inspection.annotations)
    model = build_model(model_config, len(inspection.class_names), load_weights=False)
    return measure_coverage(
        inspection.annotations,
        model.priors_cxcywh,
        image_size=model.image_size,
        iou_threshold=config.loss.iou_threshold,
    )


def _print(data: str, inspection: Inspection, coverage: Coverage | None, screen: Screen) -> None:
    from ssd_dist.data.coverage import by_class, by_coco_size, by_input_side
    from ssd_dist.data.problems import TREATMENTS, printable

    screen.heading(printable(publishable(data)))
    screen.console.print(_splits_table(inspection))
    # Not by rich, which takes a tenth of a millisecond a line: there may be a hundred thousand.
    treatment = None
    lines = []
    for problem in inspection.problems:
        if problem.treatment != treatment:
            treatment = problem.treatment
            lines.append(f"\n{treatment}: {TREATMENTS[treatment]}")
        where = problem.file if problem.line is None else f"{problem.file}:{problem.line}"
        lines.append(printable(f"  {where}: {problem.message}"))
    print("\n".join(lines) if lines else "\nno problems", file=sys.stdout)
    screen.line("")
    if inspection.problems:
        screen.console.print(_kinds_table(inspection))
    if coverage is None:
        return
    lost = int(coverage.unmatched.sum())
    screen.heading(
        f"{lost:,} of {len(coverage.labels):,} objects have no prior with an IoU of "
        f"{coverage.iou_threshold:g} or more, among the {coverage.num_priors:,} of the model at "
        f"{coverage.image_size} px; they still take their best one"
    )
    screen.console.print(_coverage_table("size in the picture", by_coco_size(coverage)))
    screen.console.print(_coverage_table("side at the input", by_input_side(coverage)))
    screen.console.print(_coverage_table("class", by_class(coverage, inspection.class_names)))


def _splits_table(inspection: Inspection) -> Table:
    table = _table(None, ["split", "pictures", "without objects", "objects", "difficult"])
    for split in inspection.splits:
        table.add_row(
            _cell(split.name),
            f"{split.num_pictures:,}",
            f"{split.num_empty:,}",
            f"{split.num_objects:,}",
            f"{split.num_difficult:,}",
        )
    return table


def _kinds_table(inspection: Inspection) -> Table:
    from ssd_dist.data.problems import KINDS

    table = _table("Problems", ["how many", "treatment", "what"])
    counts = Counter(problem.kind for problem in inspection.problems)
    for kind, count in counts.items():
        treatment, meaning = KINDS[kind]
        table.add_row(f"{count:,}", treatment, _cell(meaning))
    return table


def _coverage_table(by: str, rows: Sequence[CoverageRow]) -> Table:
    table = _table(None, [by, "objects", "no prior", "share", "mean best IoU"])
    for row in rows:
        share = f"{row.num_unmatched / row.num_objects:.2%}" if row.num_objects else ""
        mean = "" if row.mean_best_iou is None else f"{row.mean_best_iou:.2f}"
        table.add_row(
            _cell(row.name), f"{row.num_objects:,}", f"{row.num_unmatched:,}", share, mean
        )
    return table


def _table(title: str | None, columns: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        numbers = column not in ("treatment", "what") and (i > 0 or column == "how many")
        table.add_column(column, justify="right" if numbers else "left")
    return table


def _cell(text: str) -> str:
    """Text of a data set in a table: neither markup nor control characters."""
    from rich.markup import escape

    from ssd_dist.data.problems import printable

    return escape(printable(text))


def _content(data: str, inspection: Inspection, coverage: Coverage | None) -> dict[str, Any]:
    """What `--json` writes."""
    from ssd_dist.data.coverage import coverage_json

    return {
        "data": publishable(data),
        "class_names": list(inspection.class_names),
        "splits": [asdict(split) for split in inspection.splits],
        "num_refused": inspection.num_refused,
        "problems": [problem.to_json() for problem in inspection.problems],
        "coverage": (
            None
            if coverage is None
            else coverage_json(coverage, inspection.class_names, inspection.picture_names)
        ),
    }
