"""Watches a network run, and records every operation of it; on tensors without memory that costs
next to nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from ssd_dist.analysis.layers import Layer, describe, distinct_tensors, storage_of

_WITHOUT_WORK = {"detach", "_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty"}
"""Beside views, what neither reads nor writes memory."""


class OperationCounter(TorchDispatchMode):
    """Records in `layers` all that PyTorch runs inside the `with`, in order.

    Args:
        model: what is called inside; its modules give the layers their names.
        parameters: the tensors, by name, that it is called with.
    """

    def __init__(self, model: nn.Module, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self._modules = dict(model.named_modules())
        self._weights = {storage_of(tensor): tensor.numel() for tensor in parameters.values()}
        self._unread = dict(self._weights)
        self._path = [""]
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> OperationCounter:
        for path, module in self._modules.items():
            enter = module.register_forward_pre_hook(lambda *_, path=path: self._path.append(path))
            leave = module.register_forward_hook(lambda *_: self._leave(), always_call=True)
            self._handles += [enter, leave]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        while self._handles:
            self._handles.pop().remove()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Runs the operation, and records it unless it is a view."""
        result = func(*args, **(kwargs or {}))
        is_view = func.is_view or torch.Tag.inplace_view in func.tags
        works = not is_view and func.overloadpacket.__name__ not in _WITHOUT_WORK
        if works and distinct_tensors(result):
            self._record(func.overloadpacket, (*args, *(kwargs or {}).values()), result)
        return result

    def _record(self, operation: Any, args: tuple[Any, ...], result: Any) -> None:
        storages = {storage_of(tensor) for tensor in distinct_tensors(args)}
        path = self._path[-1]
        self.layers.append(
            describe(
                operation,
                args,
                result,
                path=path,
                is_leaf=path != "" and not any(True for _ in self._modules[path].children()),
                params=sum(self._unread.pop(storage, 0) for storage in storages),
                has_weights=not storages.isdisjoint(self._weights),
            )
        )

    def _leave(self) -> None:
        self._path.pop()


class AsOnDevice(TorchDispatchMode):
    """Inside this `with`, operations without memory give what a CPU or a GPU would give.

    Left alone they differ in two ways: a convolution forgets the layout of its input, and copies
    follow that no device makes; batch norm in inference gives statistics, which take memory.
    Attention stays in its parts (products and softmax) where a device runs them as one: its bytes
    and its memory are those of the parts.
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Runs the operation, or shows its outputs' shapes."""
        if func is torch.ops.aten.native_batch_norm.default and args[0].is_meta:
            images, training = args[0], args[5]
            size = images.shape[1] if training else 0
            return torch.empty_like(images), images.new_empty(size), images.new_empty(size)
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default and result.is_meta:
            layout = torch.channels_last if _is_channels_last(args[0]) else torch.contiguous_format
            return result.contiguous(memory_format=layout)
        return result


def _is_channels_last(images: Tensor) -> bool:
    return not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last)


def stand_ins(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors without memory in the place of the model's parameters, and of its buffers, by name;
    for `torch.func.functional_call`. Those train that train in the model."""

    def stand_in(tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, device="meta", requires_grad=tensor.requires_grad)

    parameters = {name: stand_in(parameter) for name, parameter in model.named_parameters()}
    return parameters, {name: stand_in(buffer) for name, buffer in model.named_buffers()}
