"""Where things lie in a VOC root: `ImageSets/Main/<split>.txt`, `Annotations`, `JPEGImages`."""

from __future__ import annotations

from pathlib import Path

from ssd_dist.data.pictures import SUFFIXES
from ssd_dist.data.problems import ProblemList, quoted
from ssd_dist.data.root_files import MAX_TEXT_BYTES, is_file_name, read_lines, usable_file
from ssd_dist.data.shared_pictures import Entry, tell_shared

_SPLITS_FOLDER = Path("ImageSets", "Main")

Ids = dict[str, int]
"""Picture's identifier → its line in the split's file, in the file's order."""


def is_root(root: Path) -> bool:
    """Whether `root` holds at least one split file."""
    return any((root / _SPLITS_FOLDER).glob("*.txt"))


def split_names(root: Path) -> list[str]:
    """The root's splits, without VOC's per-class files (`aeroplane_train` beside `train`)."""
    names = {path.stem for path in (root / _SPLITS_FOLDER).glob("*.txt")}
    return sorted(n for n in names if "_" not in n or n.rsplit("_", 1)[1] not in names)


def split_path(root: Path, split: str) -> Path:
    """The file that lists a split."""
    return root / _SPLITS_FOLDER / f"{split}.txt"


def annotation_path(root: Path, image_id: str) -> Path:
    """The annotation file of a picture."""
    return root / "Annotations" / f"{image_id}.xml"


def read_splits(root: Path, split: str, problems: ProblemList) -> dict[str, Ids]:
    """The identifiers of `split` and of all the root's splits, in which `split` comes first.

    Told to `problems`: names with a path in them (refused), repeated ones (dropped), an empty
    `split` (refused), and pictures that `split` shares with another.

    Raises ValueError if there is no such split (naming those that exist), DataError as `problems`
    does.
    """
    path = split_path(root, split)
    known = split_names(root)
    if not path.exists():
        raise ValueError(f"no split {split!r} in {path.parent}; there are: {', '.join(known)}")
    ids = {name: _read_ids(root, name, problems) for name in dict.fromkeys((split, *known))}
    if not ids[split]:
        problems.add("empty_split", path, "the split names no picture")
    entries = {
        name: {each: Entry(each, split_path(root, name), line) for each, line in found.items()}
        for name, found in ids.items()
    }
    tell_shared(split, entries, problems)
    return ids


def _read_ids(root: Path, split: str, problems: ProblemList) -> Ids:
    """A picture a line; further columns (as in VOC's `aeroplane_train.txt`) are not read."""
    path = split_path(root, split)
    missing = "no such list of pictures"
    if not usable_file(path, root, problems, missing=missing, max_bytes=MAX_TEXT_BYTES):
        return {}
    ids: Ids = {}
    for line, columns in enumerate(map(str.split, read_lines(path, problems)), start=1):
        if not columns:
            continue
        image_id = columns[0]
        if not is_file_name(image_id):
            problems.add(
                "outside_root",
                path,
                f"the identifier {quoted(image_id)} has a path in it; give the bare name of a "
                "picture",
                line=line,
            )
        elif image_id in ids:
            message = (
                f"repeated identifier {quoted(image_id)} dropped, first in line {ids[image_id]}"
            )
            problems.add("repeated_id", path, message, line=line)
        else:
            ids[image_id] = line
    return ids


def find_pictures(root: Path, problems: ProblemList) -> dict[str, Path] | None:
    """Stem → picture; of several with one stem that of the earliest of `pictures.SUFFIXES`, and the
    others are told. None, and told, if there is no folder of pictures."""
    folder = root / "JPEGImages"
    if not folder.is_dir():
        problems.add("missing_file", folder, "no folder of this name, in which pictures should be")
        return None
    found = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    found.sort(key=lambda path: (SUFFIXES.index(path.suffix.lower()), path.name))
    pictures: dict[str, Path] = {}
    for path in found:
        chosen = pictures.setdefault(path.stem, path)
        if chosen != path:
            message = f"a second picture of this name ignored: {chosen.name} is read"
            problems.add("second_picture", path, message)
    return pictures
