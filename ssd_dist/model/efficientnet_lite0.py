"""EfficientNet-Lite0's weights from the names of one program to those of another."""

from __future__ import annotations

from torch import Tensor

_LITE0_STAGE_LENGTHS = (1, 2, 2, 3, 3, 4, 1)
_LITE0_LAYERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_LITE0_FIRST_STAGE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}


def rename_efficientnet_lite0(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """From the names of the original PyTorch port (`_blocks.N._bn0`) to timm's (`blocks.s.i.bn1`).

    N counts blocks through all stages. Blocks of the first stage have no expansion, so the same
    position has another name there. The classifier's tensors are dropped.
    """
    stage_of = [(s, i) for s, length in enumerate(_LITE0_STAGE_LENGTHS) for i in range(length)]
    renamed = {}
    for name, tensor in state.items():
        head, _, rest = name.partition(".")
        if head in ("_conv_stem", "_bn0"):
            renamed[f"{'conv_stem' if head == '_conv_stem' else 'bn1'}.{rest}"] = tensor
        elif head == "_blocks":
            number, layer, leaf = rest.split(".")
            stage, index = stage_of[int(number)]
            layers = _LITE0_FIRST_STAGE if stage == 0 else _LITE0_LAYERS
            renamed[f"blocks.{stage}.{index}.{layers[layer]}.{leaf}"] = tensor
    return renamed
