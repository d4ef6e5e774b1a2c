"""Reads JSON files of a given shape, and says in words what is wrong with one that has another."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TypeVar

import msgspec

from ssd_dist.data.problems import DataError, Problem

T = TypeVar("T")

_WORDS = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_json(path: str | Path, shape: type[T], expected: str) -> T:
    """The file's content as a `shape`, a type that msgspec knows: nothing is converted, and fields
    that the shape has not are skipped.

    NaN and infinite numbers, which JSON has not but Python writes, are read as such: whether a
    number must be finite is for the caller to check, who can name its place.

    Args:
        path: the file.
        shape: what it should hold, such as `list[Row]` with `Row` a `msgspec.Struct`.
        expected: the shape in words; ends the sentence about a file of another shape.

    Raises FileNotFoundError if there is no such file; DataError (a ValueError), naming the file and
    the place in it, if it is empty, no JSON, or of another shape.
    """
    path = Path(path)
    if not path.is_file():
        kind = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {kind}; give {expected}")
    data = path.read_bytes().removeprefix(_BYTE_ORDER_MARK)
    if not data or data.isspace():
        raise _broken(path, f"the file is empty; expected {expected}")
    try:
        try:
            return msgspec.json.decode(data, type=shape)
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError):
            # Malformed, or only NaN where a number should be: the standard library's slower parser
            # reads that, and knows the line of anything else.
            return msgspec.convert(_parse_with_nan(path, data), type=shape)
    except msgspec.ValidationError as error:
        raise _broken(path, f"{_in_words(str(error))}; expected {expected}") from None
    except UnicodeEncodeError as error:  # half of a surrogate pair, as in "\\ud800"
        raise _broken(path, f"not readable as text: {error}") from None
    except RecursionError:
        raise _broken(path, f"nested too deeply; expected {expected}") from None


def _parse_with_nan(path: Path, data: bytes) -> object:
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        where = f"(line {error.lineno}, column {error.colno})"
        raise _broken(path, f"not readable as JSON: {error.msg} {where}") from None
    except UnicodeDecodeError as error:
        raise _broken(path, f"not readable as text: {error}") from None
    except ValueError as error:  # a whole number of thousands of digits
        raise _broken(path, f"not readable as JSON: {error}") from None


def _broken(path: Path, message: str) -> DataError:
    return DataError(Problem("broken_annotation", str(path), message))


def _in_words(message: str) -> str:
    """msgspec's "Expected `float`, got `str` - at `$[17].score`" for people who do not program."""
    message, _, place = message.partition(" - at `$")
    place = place.removesuffix("`").removeprefix(".") or "the file"
    if wrong := re.fullmatch(r"Expected `(.+)`, got `(.+)`", message):
        return f"{place} is {_kinds(wrong[2])}, not {_kinds(wrong[1])}"
    if missing := re.fullmatch(r"Object missing required field `(.+)`", message):
        return f"{place} has no {missing[1]!r}"
    if length := re.match(r"Expected `array` of length (\d+)", message):
        return f"{place} is not a list of {length[1]}"
    return f"{place}: {message[0].lower()}{message[1:]}"


def _kinds(names: str) -> str:
    return " or ".join(_WORDS.get(name, name) for name in names.split(" | "))
