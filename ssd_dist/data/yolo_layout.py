"""Where things lie in a YOLO root: data.yaml, the lists or folders of pictures that it names, and a
label file for each picture.

data.yaml                     names, and for each split a folder or a list of pictures
images/train/a.jpg            a picture; or train/images/a.jpg, as Roboflow has it
labels/train/a.txt            its label file: the same path, with the last `images` made `labels`
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from ssd_dist.data.annotations import class_name_problem
from ssd_dist.data.pictures import SUFFIXES
from ssd_dist.data.problems import ProblemList, quoted
from ssd_dist.data.root_files import MAX_TEXT_BYTES, read_bytes, read_lines, usable_file
from ssd_dist.data.shared_pictures import Entry

FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
MAX_YAML_BYTES = 2**20
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class YoloRoot:
    """What data.yaml says."""

    file: Path
    names: Mapping[int, str]
    """Number of a class in the label files → its name."""
    sources: Mapping[str, tuple[str, ...]]
    """Split → the folders and lists that make it up, by paths from the root."""


def is_root(root: Path) -> bool:
    """Whether `root` has a data.yaml (or dataset.yaml)."""
    return _file(root) is not None


def split_names(root: Path) -> list[str]:
    """The splits that data.yaml names."""
    return sorted(read_root(root, ProblemList(strict=True)).sources)


def read_root(root: Path, problems: ProblemList) -> YoloRoot:
    """Reads data.yaml. Told to `problems`, and refused: a file that is no YAML or of another shape,
    names that can't be shown or are there twice. `path`, which names the data set's folder on
    another machine, is not looked at.

    Raises DataError as `problems` does.
    """
    file = _file(root)
    assert file is not None, "asked for what is no root"
    content = _read_yaml(file, root, problems)
    sources: dict[str, tuple[str, ...]] = {}
    for key, value in content.items():
        entries = tuple(value) if isinstance(value, list) else (value,)
        if not entries or not all(isinstance(entry, str) and entry for entry in entries):
            continue
        if key in _SPLITS:
            sources[_SPLITS[key]] = entries
        elif isinstance(key, str) and all(entry.endswith(".txt") for entry in entries):
            sources[key] = entries
    if not sources:
        _refuse(file, "names no split: train, val or test and its folder", problems)
    return YoloRoot(file, _read_names(file, content, problems), sources)


def find_pictures(
    root: Path, yolo: YoloRoot, split: str, problems: ProblemList
) -> dict[Path, Entry]:
    """The pictures of a split → where they are named: those of a folder and all below it, by name;
    those of a list in its order. A second one of the same path is dropped, and told."""
    pictures: dict[Path, Entry] = {}
    for source in yolo.sources[split]:
        relative = _inside(source)
        if relative is None:
            message = f"{split}: {quoted(source)} leads out of the data set's folder"
            problems.add("outside_root", yolo.file, message)
            continue
        path = root / relative
        if path.suffix == ".txt":
            found = _listed(path, root, problems)
        elif path.is_dir():
            found = [
                (each, Entry(str(each.relative_to(path)), each))
                for each in sorted(path.rglob("*"))
                if each.suffix.lower() in SUFFIXES
            ]
        else:
            message = f"no folder {relative}, in which the pictures of {split!r} should be"
            problems.add("missing_file", yolo.file, message)
            continue
        for picture, entry in found:
            if picture in pictures:
                message = f"the picture {quoted(entry.name)} is there again, and dropped"
                problems.add("repeated_id", entry.file, message, line=entry.line)
            else:
                pictures[picture] = entry
    return pictures


def label_path(root: Path, picture: Path) -> Path:
    """The label file of a picture: beside it, or in `labels` where the picture is in `images`."""
    parts = list(picture.relative_to(root).with_suffix(".txt").parts)
    for i in reversed(range(len(parts) - 1)):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return root.joinpath(*parts)


def image_ids(pictures: Mapping[Path, Entry]) -> dict[Path, str]:
    """A name for each picture: its path below the folder that they have in common, without its
    suffix; with it, where two differ in nothing else."""
    if not pictures:
        return {}
    common = Path(os.path.commonpath([picture.parent for picture in pictures]))
    full = {picture: picture.relative_to(common).as_posix() for picture in pictures}
    short = {picture: str(PurePosixPath(name).with_suffix("")) for picture, name in full.items()}
    times: dict[str, int] = {}
    for name in short.values():
        times[name] = times.get(name, 0) + 1
    return {p: name if times[name] == 1 else full[p] for p, name in short.items()}


def _file(root: Path) -> Path | None:
    return next((root / name for name in FILES if (root / name).is_file()), None)


def _listed(path: Path, root: Path, problems: ProblemList) -> list[tuple[Path, Entry]]:
    """The pictures of a list, one a line, by paths from the root."""
    missing = "no such list of pictures"
    if not usable_file(path, root, problems, missing=missing, max_bytes=MAX_TEXT_BYTES):
        return []
    found = []
    for line, text in enumerate(read_lines(path, problems), start=1):
        name = text.strip()
        if not name:
            continue
        relative = _inside(name)
        if relative is None:
            message = f"{quoted(name)} leads out of the data set's folder; give a path from it"
            problems.add("outside_root", path, message, line=line)
            continue
        found.append((root / relative, Entry(name, path, line)))
    return found


def _inside(text: str) -> PurePosixPath | None:
    """A path from the root; None if it leads out of it. Roboflow's lead one folder up for no
    reason: its `../train/images` is `train/images`."""
    path = PurePosixPath(text)
    if path.parts[:1] == ("..",):
        path = PurePosixPath(*path.parts[1:])
    return None if path.is_absolute() or ".." in path.parts or "\0" in text else path


def _read_yaml(file: Path, root: Path, problems: ProblemList) -> dict[Any, Any]:
    if not usable_file(file, root, problems, missing="no such file", max_bytes=MAX_YAML_BYTES):
        return {}
    try:
        content = yaml.safe_load(read_bytes(file, problems) or b"")
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        said = error.problem or error.context
        message = f"not readable as YAML: {said}"
        problems.add("broken_annotation", file, message, line=line)
        return {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        _refuse(file, f"not readable as YAML: {error}", problems)
        return {}
    if not isinstance(content, dict):
        _refuse(file, "no data.yaml of YOLO: expected names, and folders of pictures", problems)
        return {}
    return content


def _read_names(file: Path, content: Mapping[Any, Any], problems: ProblemList) -> dict[int, str]:
    """From a list, or a mapping from numbers."""
    given = content.get("names")
    entries = list(enumerate(given)) if isinstance(given, list) else []
    if isinstance(given, dict):
        entries = list(given.items())
    if not entries:
        _refuse(file, "has no 'names', the list of class names", problems)
    names: dict[int, str] = {}
    for key, value in entries:
        if not isinstance(key, int) or isinstance(key, bool) or key < 0:
            message = f"names: {_scalar(key)} is no number of a class"
            problems.add("broken_annotation", file, message, place="names")
            continue
        place = f"names[{key}]"
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e9:
            value = str(value)
        if not isinstance(value, str):
            message = f"{place} is {_scalar(value)}, not text; put it in quotes"
            problems.add("bad_class_name", file, message, place=place)
        elif wrong := class_name_problem(value):
            problems.add("bad_class_name", file, f"class {key} {wrong}", place=place)
        elif value in names.values():
            message = f"{place} repeats the name {quoted(value)}"
            problems.add("repeated_entry", file, message, place=place)
        else:
            names[key] = value
    number = content.get("nc")
    if isinstance(number, int) and entries and number != len(entries):
        _refuse(file, f"nc is {number}, but there are {len(entries)} names", problems)
    return names


def _scalar(value: Any) -> str:
    """A value in words; not what it holds, which aliases can make endless."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return "nothing" if value is None else quoted(str(value))


def _refuse(file: Path, message: str, problems: ProblemList) -> None:
    problems.add("broken_annotation", file, message)
