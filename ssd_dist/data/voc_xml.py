"""One annotation file of PASCAL VOC: a picture's size and objects, with their lines in the XML.

The file is read as a stream of events (SAX), so that neither its depth nor the number of its
objects needs more than they take themselves. defusedxml refuses the definition of entities, by
which a few lines become gigabytes, and references to anything outside the file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.sax import SAXParseException
from xml.sax.handler import ContentHandler
from xml.sax.xmlreader import AttributesImpl, Locator

import defusedxml.sax
from defusedxml.common import DefusedXmlException, ExternalReferenceForbidden

from ssd_dist.data.annotations import AnnotatedObject, class_name_problem, coordinate_problem
from ssd_dist.data.problems import DataError, ProblemList, quoted
from ssd_dist.data.root_files import read_bytes

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_ROOT = "annotation"
_OBJECT = ("object",)
_VALUES = {
    ("size", "width"),
    ("size", "height"),
    ("object", "name"),
    ("object", "difficult"),
    *(("object", "bndbox", corner) for corner in _CORNERS),
}
"""Elements whose text is read, by their path below the root."""
_ONCE = _VALUES | {("size",), ("object", "bndbox")}
_MAX_DIGITS = 9


@dataclass(frozen=True, slots=True)
class VocFile:
    """An annotation file."""

    path: Path
    size: tuple[int, int]
    """(width, height) by `<size>`; 0 where the file has none that is a number."""
    size_line: int | None
    """Line of its `<width>`."""
    objects: tuple[AnnotatedObject, ...]


def read_voc_file(path: Path, problems: ProblemList) -> VocFile | None:
    """Reads one annotation file, which is there and of a bearable size.

    Returns None if it can't be read at all. Told to `problems`, with the line: broken XML,
    entities, an object without a name, a coordinate that is not a finite number, a `<difficult>`
    that is neither 0 nor 1 (all refused; such an object is left out where the list is not strict),
    and what stands twice where once is expected (ignored).
    """
    content = read_bytes(path, problems)
    if content is None:
        return None
    handler = _Handler(path, problems)
    try:
        defusedxml.sax.parseString(content, handler)
    except DataError:
        raise
    except DefusedXmlException as error:
        problems.add(
            "forbidden_xml",
            path,
            f"not readable as XML: {_in_words(error)}, which no annotation needs",
            line=handler.line,
        )
        return None
    except SAXParseException as error:
        message = f"not readable as XML: {error.getMessage()}"
        problems.add("broken_annotation", path, message, line=error.getLineNumber())
        return None
    except (ValueError, LookupError) as error:  # encodings that Python or expat does not know
        problems.add("broken_annotation", path, f"not readable as XML: {error}", line=1)
        return None
    if handler.root_name != _ROOT:
        problems.add(
            "broken_annotation",
            path,
            f"no VOC annotation: its root is <{(handler.root_name or '')[:60]}>, not <{_ROOT}>",
            line=1,
        )
        return None
    return VocFile(
        path=path,
        size=(handler.side("width"), handler.side("height")),
        size_line=handler.values.get(("size", "width"), (None, None))[1],
        objects=tuple(handler.objects),
    )


class _Handler(ContentHandler):
    """Gathers the values of an annotation as the parser meets them."""

    def __init__(self, path: Path, problems: ProblemList) -> None:
        super().__init__()
        self.root_name: str | None = None
        self.objects: list[AnnotatedObject] = []
        self.values: dict[tuple[str, ...], tuple[str, int]] = {}
        """Path of an element → its text and its line; of objects, those of the present one."""
        self._file = path
        self._problems = problems
        self._open: list[str] = []
        self._seen: set[tuple[str, ...]] = set()
        self._skipped_depth = math.inf
        """Elements from this depth on are part of one that is ignored."""
        self._text: list[str] | None = None
        self._text_line = 0
        self._object_line = 0
        self._locator: Locator | None = None

    @property
    def line(self) -> int:
        """Where the parser is, from 1."""
        return (self._locator.getLineNumber() if self._locator else None) or 1

    def side(self, name: str) -> int:
        text = self.values.get(("size", name), ("", 0))[0].strip()
        return int(text) if text.isdecimal() and len(text) <= _MAX_DIGITS else 0

    def setDocumentLocator(self, locator: Locator) -> None:  # noqa: N802 - SAX's own name
        self._locator = locator

    def skippedEntity(self, name: str) -> None:  # noqa: N802
        assert self._locator is not None
        raise SAXParseException(f"undefined entity &{name[:60]};", None, self._locator)

    def startElement(self, name: str, attrs: AttributesImpl) -> None:  # noqa: N802
        self._open.append(name)
        depth = len(self._open)
        if depth == 1:
            self.root_name = name
            if name != _ROOT:
                self._skipped_depth = 2
        # Deeper than a corner of a box, nothing is read, and paths could become long.
        if depth == 1 or depth > 4 or depth > self._skipped_depth:
            return
        path = tuple(self._open[1:])
        if path == _OBJECT:
            self._object_line = self.line
            self._seen = {seen for seen in self._seen if seen[0] != "object"}
            self.values = {key: value for key, value in self.values.items() if key[0] != "object"}
        elif path in _ONCE and path in self._seen:
            self._problems.add(
                "repeated_element",
                self._file,
                f"a second <{name}> in one <{self._open[-2]}> ignored: the first holds",
                line=self.line,
            )
            self._skipped_depth = depth
        elif path in _ONCE:
            self._seen.add(path)
            if path in _VALUES:
                self._text, self._text_line = [], self.line

    def characters(self, content: str) -> None:
        if self._text is not None:
            self._text.append(content)

    def endElement(self, name: str) -> None:  # noqa: N802
        depth = len(self._open)
        if depth >= self._skipped_depth:
            if depth == self._skipped_depth:
                self._skipped_depth = math.inf
        elif 1 < depth <= 4:
            path = tuple(self._open[1:])
            if self._text is not None and path in _VALUES:
                self.values[path] = ("".join(self._text), self._text_line)
                self._text = None
            elif path == _OBJECT and (found := self._object()) is not None:
                self.objects.append(found)
        self._open.pop()

    def _object(self) -> AnnotatedObject | None:
        """The object that has just ended; None, and told, if it is not one."""
        missing = (None, self._object_line)
        text, line = self.values.get(("object", "name"), missing)
        class_name = (text or "").strip()
        if wrong := class_name_problem(class_name):
            self._problems.add("bad_class_name", self._file, f"an object {wrong}", line=line)
            return None
        corners, shown = [], quoted(class_name)
        for corner in _CORNERS:
            text, line = self.values.get(("object", "bndbox", corner), missing)
            try:
                value = float(text) if text is not None else math.nan
            except ValueError:
                value = math.nan
            if wrong := coordinate_problem(value):
                message = f"<{corner}> of a {shown} is {quoted(text)}, {wrong}"
                self._problems.add("bad_coordinate", self._file, message, line=line)
                return None
            corners.append(value)
        text, line = self.values.get(("object", "difficult"), missing)
        flag = (text or "0").strip()
        if flag not in {"0", "1"}:
            message = f"<difficult> of a {shown} is {quoted(flag)}, not 0 or 1"
            self._problems.add("bad_difficult", self._file, message, line=line)
            return None
        box_xyxy = (corners[0], corners[1], corners[2], corners[3])
        return AnnotatedObject(class_name, box_xyxy, flag == "1", self._object_line)


def _in_words(error: DefusedXmlException) -> str:
    if isinstance(error, ExternalReferenceForbidden):
        return f"it refers to {quoted(error.sysid or error.pubid)}"
    return f"it defines the entity {quoted(getattr(error, 'name', None))}"
