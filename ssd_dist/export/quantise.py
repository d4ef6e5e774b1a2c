"""An ONNX detector with its convolutions in int8: static quantisation by onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssd_dist.export.check import planes
from ssd_dist.export.onnx_file import INPUT, first_line, quiet
from ssd_dist.structures import Split


def quantise(source: Path, target: Path, split: Split, positions: Sequence[int]) -> None:
    """Writes `source` anew with the weights and the inputs of its convolutions as 8-bit integers.

    Weights have a scale for each channel; inputs one each, from the least and the greatest values
    that the calibration pictures give. All else stays as it is, decoding and suppression too.

    Args:
        source: an ONNX file of :func:`ssd_dist.export.onnx_file.write_onnx`.
        target: the file to write.
        split: of the calibration pictures; these should be of the training split.
        positions: in the split, of pictures that `source` takes; at least one.

    Raises ValueError, in one sentence, if onnxruntime can't do it.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(dir=target.parent) as scratch, quiet():
        # Folds batch normalisation into the convolutions before these get their scales.
        prepared = Path(scratch) / "prepared.onnx"
        try:
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                target,
                _Calibration(split, positions),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except Exception as error:  # its steps raise whatever they meet
            raise ValueError(f"onnxruntime can't make int8 of it: {first_line(error)}") from error


class _Calibration:
    """Pictures one at a time, as onnxruntime's calibration asks for them."""

    def __init__(self, split: Split, positions: Sequence[int]) -> None:
        self._pictures: Iterator[np.ndarray] = (
            planes(split.read_image(position)) for position in positions
        )

    def get_next(self) -> dict[str, Any] | None:
        """The next picture under the input's name; None at the end."""
        picture = next(self._pictures, None)
        return None if picture is None else {INPUT: picture}

    def set_range(self, start_index: int, end_index: int) -> None:
        """Of no effect: the pictures are read once."""
