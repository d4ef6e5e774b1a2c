"""Where things lie in a COCO root: a split is an annotation file and a folder of pictures.

COCO's own layout     annotations/instances_train2017.json    train2017/*.jpg
others of its kind    annotations/train.json                  train/, images/train/ or images/
Roboflow's            train/_annotations.coco.json            train/*.jpg
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROBOFLOW_FILE = "_annotations.coco.json"
_YEAR = re.compile(r"[-_]?(19|20)\d\d$")
_VALIDATION = ("valid", "validation")


@dataclass(frozen=True, slots=True)
class CocoSplit:
    """Where a split lies."""

    name: str
    """`train` for train2017, `val` for valid, unless two splits would be called so."""
    full_name: str
    """As its file or its folder is called."""
    file: Path
    """Its annotations."""
    folders: tuple[Path, ...]
    """Where its pictures may lie, likeliest first."""


def find_splits(root: Path) -> list[CocoSplit]:
    """The root's splits, sorted by name. Other files in `annotations`, such as COCO's captions, are
    none where there are `instances_*.json`."""
    files = sorted((root / "annotations").glob("*.json"))
    instances = [path for path in files if path.stem.startswith("instances_")]
    found = {path.stem.removeprefix("instances_"): path for path in instances or files}
    folders: dict[str, tuple[Path, ...]] = {
        name: (root / name, root / "images" / name, root / "images", root) for name in found
    }
    for path in sorted(root.glob(f"*/{ROBOFLOW_FILE}")):
        if path.parent.name not in found:
            found[path.parent.name] = path
            folders[path.parent.name] = (path.parent,)
    times = Counter(map(_short, found))
    splits = [
        CocoSplit(_short(name) if times[_short(name)] == 1 else name, name, path, folders[name])
        for name, path in found.items()
    ]
    return sorted(splits, key=lambda split: split.name)


def choose(splits: Sequence[CocoSplit], name: str) -> CocoSplit | None:
    """The split of a name, short or full; None if there is none."""
    for split in splits:
        if name in (split.name, split.full_name):
            return split
    return None


def picture_folder(split: CocoSplit, file_names: Sequence[str]) -> Path:
    """The folder with the split's pictures: the first that has one of the first few named."""
    for folder in split.folders:
        if any((folder / name).is_file() for name in file_names[:8] if is_inside(name)):
            return folder
    return next((folder for folder in split.folders if folder.is_dir()), split.folders[-1])


def is_inside(name: str) -> bool:
    """Whether a `file_name`, which may have folders in it, stays in the folder it is taken from."""
    path = PurePosixPath(name)
    return (
        name not in ("", ".")
        and not set(name) & set("\\\0")
        and not path.is_absolute()
        and ".." not in path.parts
    )


def _short(name: str) -> str:
    short = _YEAR.sub("", name) or name
    return "val" if short in _VALIDATION else short
