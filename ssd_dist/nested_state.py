"""The state of a training as JSON and tensors by name: nothing that could run.

Lists, text, whole numbers, finite floats, booleans, None, and dictionaries by text are JSON's own.
Everything else is an object with a single key that starts with `$`:

{"$tensor": NAME}          a tensor
{"$channels_last": NAME}   a tensor (B, C, H, W) whose channels lie next to each other in memory
{"$tuple": [VALUE, …]}
{"$float": "nan"}          or "inf" or "-inf", which JSON has not
{"$items": [[KEY, VALUE], …]}   a dictionary by numbers, as an optimizer's; or by text with a `$`
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_ROOT = "state"


def flatten(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Nested plain containers → what `json` writes, and the tensors by names of their own.

    The names tell the place: `state.optimizer.state.0.exp_avg`. The tensors lie on the CPU, are
    contiguous and share no memory with each other; they may share it with those given.

    Raises TypeError, naming the place, for anything but tensors, numbers, text, booleans and None
    in dictionaries by numbers or text, lists and tuples.
    """
    found = _Tensors()
    return _encode(state, _ROOT, found), found.by_name


def unflatten(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of :func:`flatten`; raises ValueError for what flatten does not make."""
    match value:
        case {"$tensor": str(name), **rest} if not rest:
            return _tensor(tensors, name)
        case {"$channels_last": str(name), **rest} if not rest and _tensor(tensors, name).ndim == 4:
            return _tensor(tensors, name).contiguous(memory_format=torch.channels_last)
        case {"$tuple": list(values), **rest} if not rest:
            return tuple(unflatten(inside, tensors) for inside in values)
        case {"$float": "nan" | "inf" | "-inf" as number, **rest} if not rest:
            return float(number)
        case {"$items": list(items), **rest} if not rest:
            return dict(_item(item, tensors) for item in items)
        case dict():
            for key in value:
                if key.startswith("$"):
                    raise ValueError(f"{key} can't hold {value[key]!r}")
            return {key: unflatten(inside, tensors) for key, inside in value.items()}
        case list():
            return [unflatten(inside, tensors) for inside in value]
    return value


class _Tensors:
    """Tensors by name, each with memory of its own."""

    def __init__(self) -> None:
        self.by_name: dict[str, Tensor] = {}
        self._memory: set[int] = set()

    def add(self, tensor: Tensor, place: str) -> str:
        """Takes a contiguous tensor; returns its name."""
        name = place
        while name in self.by_name:  # of a key "a.b" and of "b" within "a"
            name += "'"
        memory = tensor.untyped_storage().data_ptr()
        self.by_name[name] = tensor.clone() if memory in self._memory else tensor
        self._memory.add(memory)
        return name


def _encode(value: Any, place: str, found: _Tensors) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"$float": str(value)}
        case Tensor():
            tensor = value.detach().cpu()
            # An optimizer's state has its parameters' layout, and fused kernels insist on it.
            channels_last = not tensor.is_contiguous() and tensor.is_contiguous(
                memory_format=torch.channels_last
            )
            name = found.add(tensor.contiguous(), place)
            return {"$channels_last" if channels_last else "$tensor": name}
        case list():
            return [_encode(inside, f"{place}.{i}", found) for i, inside in enumerate(value)]
        case tuple():
            inside = [_encode(inside, f"{place}.{i}", found) for i, inside in enumerate(value)]
            return {"$tuple": inside}
        case Mapping():
            encoded = {key: _encode(v, f"{place}.{key}", found) for key, v in value.items()}
            if all(isinstance(key, str) and not key.startswith("$") for key in value):
                return encoded
            return {"$items": [[_encode_key(k, place), inside] for k, inside in encoded.items()]}
    raise TypeError(f"{place} is a {type(value).__name__}, which no checkpoint can hold")


def _encode_key(key: Any, place: str) -> Any:
    match key:
        case None | bool() | int() | str():
            return key
        case float() if math.isfinite(key):
            return key
    raise TypeError(f"{place} has the key {key!r}, which no checkpoint can hold")


def _item(item: Any, tensors: Mapping[str, Tensor]) -> tuple[Any, Any]:
    match item:
        case [None | bool() | int() | float() | str() as key, inside]:
            return key, unflatten(inside, tensors)
    raise ValueError(f"{item!r} is not a key and its value")


def _tensor(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise ValueError(f"there is no tensor {name!r}")
    return tensors[name]
