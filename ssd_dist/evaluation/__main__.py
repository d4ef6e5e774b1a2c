"""Evaluates any detector's output against annotations, without its pictures.

python -m ssd_dist.evaluation --ground-truth path/to/VOC2007 --detections detections.json
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ssd_dist.evaluation.options import PRESETS, ApOptions

# What computes is imported where it is needed: a question for help, or a flag that does not exist,
# is answered without loading torch.

if TYPE_CHECKING:
    Preset = str
else:
    Preset = tyro.extras.literal_type_from_choices(PRESETS)

_MOST_PROBLEMS = 10


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Evaluate detections in COCO's results format: 11-point mAP, the score threshold at each
    recall level, area mAP, COCO AP, errors by kind, and how far mAP could have come out otherwise.
    Boxes are compared in the coordinates of the annotation files as they stand."""

    ground_truth: Path
    """Folder of a data set in PASCAL VOC's, COCO's or YOLO's format, or a COCO annotation file."""
    detections: Path
    """COCO results: a list of {image_id, category_id, bbox [x, y, width, height], score}. For a
    folder image_id is the picture's stem (COCO's: its id; YOLO's: its path below the split's
    pictures, without suffix), and category_id counts the sorted class names from 1; `category` with
    a name does as well."""
    split: str = "test"
    """Split of the folder. A COCO file is one split, and wholly read."""
    format: str = "auto"
    """Of the folder: `voc`, `coco` or `yolo`; `auto`: told by looking at it."""
    json: Path | None = None
    """File for all numbers, unrounded, instead of tables on the terminal."""
    coco: bool = True
    """COCO's twelve numbers: where there are many detections, by far the slowest part."""
    num_resamples: int = 1000
    """Resamples for the 95 % bootstrap interval of mAP over pictures; 0: no interval."""
    preset: Preset = "exact"
    """Whose rules are followed."""
    rules: Annotated[ApOptions, tyro.conf.OmitArgPrefixes] = PRESETS["exact"]
    """Changes to single rules of the preset; the defaults are the preset's own."""


@dataclass(frozen=True)
class _PresetOnly:
    preset: Preset = "exact"


def parse(argv: Sequence[str] | None = None) -> Arguments:
    """Arguments from a command line, `sys.argv` if None; a rule that is not given is the preset's.

    Exits with 2 for flags that do not exist or values out of range, as usual.
    """
    # The preset is looked up first: it makes the defaults of the rules.
    preset = tyro.cli(_PresetOnly, args=argv, return_unknown_args=True, add_help=False)[0].preset
    default = Arguments(
        ground_truth=tyro.MISSING,
        detections=tyro.MISSING,
        preset=preset,
        rules=PRESETS[preset],
    )
    return tyro.cli(Arguments, args=argv, default=default, prog="python -m ssd_dist.evaluation")


def main(arguments: Arguments) -> None:
    """Ground truth and detections → a summary, printed or written.

    Raises FileNotFoundError or ValueError, in one sentence with the place, for what is wrong in the
    files.
    """
    from rich.console import Console

    from ssd_dist.data.readers import open_ground_truth
    from ssd_dist.evaluation.console import print_summary
    from ssd_dist.evaluation.detection_files import read_detections
    from ssd_dist.evaluation.summary import summarize, summary_json

    if arguments.num_resamples < 0:
        raise ValueError(f"--num-resamples must be 0 or more, not {arguments.num_resamples}")
    if arguments.json is not None and arguments.json.is_dir():
        raise ValueError(f"--json {arguments.json} is a folder; give a file")
    truth = open_ground_truth(arguments.ground_truth, arguments.split, data_format=arguments.format)
    problems = list(truth.problems)
    if arguments.split != Arguments.split and not arguments.ground_truth.is_dir():
        problems.append(f"--split {arguments.split} means nothing for a COCO file: all was read")
    _tell(problems)
    rules = arguments.rules
    if not any((~a.difficult | rules.count_difficult).any() for a in truth.annotations):
        raise ValueError(
            f"{truth.source}: no object to be found (difficult ones and crowds apart), and average "
            "precision has no meaning without one"
        )
    detections = read_detections(arguments.detections, truth)
    summary = summarize(
        truth.annotations,
        detections,
        truth.class_names,
        options=rules,
        with_coco=arguments.coco,
        num_resamples=arguments.num_resamples,
    )
    if arguments.json is None:
        # In a log nothing is gained by 80 columns.
        width = None if sys.stdout.isatty() else 160
        print_summary(summary, arguments.preset, Console(width=width, highlight=False))
    else:
        _write(arguments.json, summary_json(summary, arguments.preset))


def _tell(problems: Sequence[str]) -> None:
    for problem in problems[:_MOST_PROBLEMS]:
        print(f"note: {problem}", file=sys.stderr)
    if len(problems) > _MOST_PROBLEMS:
        print(f"note: … and {len(problems) - _MOST_PROBLEMS} more like these", file=sys.stderr)


def _write(path: Path, content: object) -> None:
    """Written beside its place and then renamed: a file that is there is whole."""
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def run(argv: Sequence[str] | None = None) -> int:
    """The exit status: 1, after a line on standard error, for what the user can put right."""
    arguments = parse(argv)
    # Not terminal.run_job, whose module loads all that a training needs.
    try:
        main(arguments)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run())
