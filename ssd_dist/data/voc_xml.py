"""One annotation file of PASCAL VOC: a picture's size and objects, as they stand in the XML."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class VocObject:
    """An `<object>`."""

    class_name: str
    box_xyxy: tuple[float, float, float, float]
    """Finite; whether it has an area and lies in the picture is not looked at."""
    difficult: bool


@dataclass(frozen=True, slots=True)
class VocFile:
    """An annotation file."""

    path: Path
    size: tuple[int, int]
    """(width, height) by `<size>`; 0 where the file has none that is a number."""
    objects: tuple[VocObject, ...]


def read_voc_file(path: Path) -> VocFile:
    """Reads one annotation file.

    Raises FileNotFoundError if there is none; ValueError, naming the file, for broken XML, an
    object without a name, a coordinate that is not a finite number, or a `<difficult>` that is
    neither 0 nor 1.
    """
    try:
        tree = defusedxml.ElementTree.fromstring(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"no annotation {path}, which a split names") from None
    except (ElementTree.ParseError, DefusedXmlException, ValueError) as error:
        raise ValueError(f"{path}: not readable as XML: {error}") from None
    return VocFile(
        path=path,
        size=(_side(tree, "width"), _side(tree, "height")),
        objects=tuple(_read_object(element, path) for element in tree.iterfind("object")),
    )


def _side(tree: ElementTree.Element, name: str) -> int:
    text = (tree.findtext(f"size/{name}") or "").strip()
    return int(text) if text.isdecimal() else 0


def _read_object(element: ElementTree.Element, path: Path) -> VocObject:
    class_name = (element.findtext("name") or "").strip()
    if not class_name:
        raise ValueError(f"{path}: an <object> has no <name>")
    corners = []
    for corner in _CORNERS:
        text = element.findtext(f"bndbox/{corner}")
        try:
            value = float(text) if text is not None else math.nan
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{path}: <{corner}> of a {class_name!r} is {text!r}, not a number")
        corners.append(value)
    flag = (element.findtext("difficult") or "0").strip()
    if flag not in {"0", "1"}:
        raise ValueError(f"{path}: <difficult> of a {class_name!r} is {flag!r}, not 0 or 1")
    return VocObject(class_name, (corners[0], corners[1], corners[2], corners[3]), flag == "1")
