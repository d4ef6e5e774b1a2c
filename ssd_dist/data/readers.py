"""From the user's `--data` to a split: which reader reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ssd_dist.data import coco_folder, voc, yolo
from ssd_dist.data.coco import read_coco
from ssd_dist.data.file_split import Reader, make_ground_truth, make_split
from ssd_dist.data.ground_truth import GroundTruth
from ssd_dist.data.problems import ProblemList
from ssd_dist.data.sources import NAMED, is_remote, local_folder
from ssd_dist.data.stored_split import MIN_PICTURES, load_split, store_split, stored_path
from ssd_dist.data.synthetic import NUM_IMAGES, synthetic_split
from ssd_dist.structures import Split

FORMATS: Mapping[str, Reader] = {"voc": voc, "coco": coco_folder, "yolo": yolo}
"""Name of a format → its reader."""


def open_split(
    data: str | Path,
    split: str,
    class_names: Sequence[str] | None = None,
    problems: ProblemList | None = None,
    *,
    data_format: str = "auto",
) -> Split:
    """Opens one split of a data set. A large one is stored as it was read, and is not read again as
    long as none of its root's files changes; see `stored_split`.

    Args:
        data: `synthetic`, or the root folder of a data set.
        split: its name, such as `train`.
        class_names: the classes, label 1 first. None: those of the data set, sorted by name, the
            same list for each of its splits. Give a checkpoint's classes to evaluate it.
        problems: where what is wrong is told; None: a strict list, as in a training. With one that
            is not strict, the split lacks what is refused.
        data_format: one of `FORMATS`, or `auto`: told by looking at the folder.

    Raises FileNotFoundError for a path or file that does not exist, and ValueError for a split that
    does not exist (naming those that do), a format that is not known, a class that is not in
    `class_names`, or an annotation that can't be read (naming the file).
    """
    if class_names is not None:
        _check_class_names(class_names)
    if data == "synthetic":
        return synthetic_split(split, class_names=class_names)
    root, reader = find_reader(data, data_format)
    # Whoever brings a list wants it filled by a reader.
    path = stored_path(root, reader.LAYOUT, split, class_names) if problems is None else None
    if path is not None and (stored := load_split(path, root)) is not None:
        return stored
    problems = ProblemList(strict=True) if problems is None else problems
    listing = reader.read(root, split, class_names, problems, with_pictures=True)
    opened = make_split(listing, root, split, problems)
    if path is not None and len(opened.annotations) >= MIN_PICTURES:
        store_split(opened, path)
    return opened


def split_names(data: str | Path, data_format: str = "auto") -> list[str]:
    """The splits of a data set, given as to `open_split`, which raises the same errors."""
    if data == "synthetic":
        return list(NUM_IMAGES)
    root, reader = find_reader(data, data_format)
    return reader.split_names(root)


def open_ground_truth(
    path: Path, split: str, problems: ProblemList | None = None, *, data_format: str = "auto"
) -> GroundTruth:
    """Opens the annotations of a data set. Its pictures are not opened, but for their sizes where
    the boxes of the format are relative to them.

    Args:
        path: the root folder of a data set, or a COCO annotation file.
        split: its name; a COCO file is one split and has no others, so that this is not looked at.
        problems: as in `open_split`.
        data_format: as in `open_split`; not looked at for a file.

    Raises FileNotFoundError for a path or file that does not exist, and ValueError for a split that
    does not exist (naming those that do), a format that is not known, or an annotation that can't
    be read (naming the file).
    """
    problems = ProblemList(strict=True) if problems is None else problems
    if path.is_file():
        return read_coco(path, problems)
    if not path.exists():
        raise FileNotFoundError(
            f"ground truth {path} does not exist; give the root folder of a data set, or a COCO "
            "annotation file"
        )
    root, reader = find_reader(path, data_format)
    listing = reader.read(root, split, None, problems, with_pictures=False)
    return make_ground_truth(listing, root, f"{root}, split {split!r}", problems)


def find_reader(data: str | Path, data_format: str = "auto") -> tuple[Path, Reader]:
    """The root folder of a data set, and what reads it.

    Raises FileNotFoundError where there is no such folder, ValueError for a format that is not
    known, or a folder that is of no format, or of several and `data_format` does not say which.
    """
    if data_format != "auto" and data_format not in FORMATS:
        known = ", ".join(("auto", *FORMATS))
        raise ValueError(f"no data format {data_format!r}; there are: {known}")
    remote = isinstance(data, str) and is_remote(data)
    root = local_folder(str(data)) if remote else Path(data).expanduser()
    if not root.is_dir():
        kind = "is a file, not a folder" if root.exists() else "does not exist"
        raise FileNotFoundError(
            f"data {str(data)!r} {kind}; give 'synthetic', the root folder of a data set, the URL "
            f"of a zip or tar of one, or {', '.join(NAMED)}"
        )
    looked_for = list(FORMATS) if data_format == "auto" else [data_format]
    nested = _nested_roots(root, looked_for)
    if remote and len(nested) == 1:
        root = nested[0]
    found = [name for name in looked_for if FORMATS[name].is_root(root)]
    if len(found) > 1:
        raise ValueError(f"{root} could be {' or '.join(found)}: say which with --format")
    if not found:
        marks = ", ".join(f"no {FORMATS[name].LAYOUT} ({name})" for name in looked_for)
        hint = f"; did you mean {' or '.join(map(str, nested[:3]))}?" if nested else ""
        raise ValueError(f"{root} holds no data set: there is {marks}{hint}")
    return root, FORMATS[found[0]]


def _nested_roots(root: Path, formats: Sequence[str]) -> list[Path]:
    """The data sets at or nearest below `root`, as in `VOCdevkit/VOC2007`: all of one depth."""
    for pattern in ("", "*", "*/*", "*/*/*"):
        folders = sorted(
            path for path in (root.glob(pattern) if pattern else [root]) if path.is_dir()
        )
        found = [path for path in folders if any(FORMATS[name].is_root(path) for name in formats)]
        if found:
            return found
    return []


def _check_class_names(class_names: Sequence[str]) -> None:
    if not class_names:
        raise ValueError("no class: the list of class names is empty")
    if len(set(class_names)) < len(class_names):
        raise ValueError(f"the class names repeat themselves: {', '.join(class_names)}")
