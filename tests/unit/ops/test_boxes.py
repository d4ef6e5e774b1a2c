import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from ssd_dist.ops.boxes import (
    cxcywh_to_xyxy,
    decode,
    encode,
    pairwise_iou,
    xyxy_to_cxcywh,
)

sides = st.floats(0.01, 1.0)
places = st.floats(0.0, 1.0)


def test_forms_by_hand():
    corners = torch.tensor([[0.1, 0.2, 0.5, 0.4]])
    assert torch.allclose(xyxy_to_cxcywh(corners), torch.tensor([[0.3, 0.3, 0.4, 0.2]]))
    assert torch.allclose(cxcywh_to_xyxy(xyxy_to_cxcywh(corners)), corners)


def test_iou_by_hand():
    one = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    others = torch.tensor(
        [
            [0.0, 0.0, 2.0, 2.0],  # itself
            [1.0, 1.0, 3.0, 3.0],  # 1 of 7
            [2.0, 0.0, 4.0, 2.0],  # touches
            [0.5, 0.5, 0.5, 1.5],  # no area
        ]
    )
    assert pairwise_iou(one, others).tolist() == [pytest.approx([1, 1 / 7, 0, 0])]


def test_two_boxes_without_area_do_not_divide_by_zero():
    point = torch.zeros(1, 4)
    assert pairwise_iou(point, point).item() == 0


def test_iou_agrees_with_torchvision_over_a_batch():
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(3, 50, 2, generator=generator)
    boxes = torch.cat([low, low + torch.rand(3, 50, 2, generator=generator)], -1)
    expected = torch.stack([box_iou(image, boxes[0]) for image in boxes])
    assert torch.allclose(pairwise_iou(boxes, boxes[0]), expected, atol=1e-6)


def test_encode_by_hand():
    prior = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    box = cxcywh_to_xyxy(torch.tensor([[0.52, 0.46, 0.2 * math.e, 0.4]]))
    # (0.02 / 0.2) / 0.1, (-0.04 / 0.4) / 0.1, ln(e) / 0.2, ln(1) / 0.2
    assert torch.allclose(encode(box, prior), torch.tensor([[1.0, -1.0, 5.0, 0.0]]), atol=1e-5)


@given(st.tuples(places, places, sides, sides), st.tuples(places, places, sides, sides))
def test_decoding_undoes_encoding(box, prior):
    box_xyxy = cxcywh_to_xyxy(torch.tensor([box], dtype=torch.float64))
    prior_cxcywh = torch.tensor([prior], dtype=torch.float64)
    ratio = max(b / p for b, p in zip(box[2:], prior[2:], strict=True))
    decoded = decode(encode(box_xyxy, prior_cxcywh), prior_cxcywh)
    if math.log(ratio) < 4:
        assert torch.allclose(decoded, box_xyxy, atol=1e-9)


def test_decoding_wild_offsets_stays_finite():
    loc = torch.full((1, 4), 1e6)
    assert decode(loc, torch.tensor([[0.5, 0.5, 0.1, 0.1]])).isfinite().all()
