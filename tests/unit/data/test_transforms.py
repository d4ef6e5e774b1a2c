"""Augmentation: content and boxes move together; against torchvision where it has the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from ssd_dist.config import AugmentationConfig
from ssd_dist.data.transforms import (
    FILL_RGB,
    augment,
    change_colours,
    clip_to_window,
    compose,
    distort_colours,
    fill_around,
    flip_boxes,
    iou_crop_window,
    resample_window,
    resize_only,
    to_window,
    zoom_out_window,
)

OFF = AugmentationConfig(photometric=0, zoom_out=0, iou_crop=0, horizontal_flip=0)
ALL = AugmentationConfig(
    photometric=1, zoom_out=1, iou_crop=1, horizontal_flip=0.5, vertical_flip=0.5
)
SEEDS = st.integers(0, 2**32 - 1)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_image(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), generator=seeded(0), dtype=torch.uint8)


def random_boxes(count: int, seed: int = 0) -> torch.Tensor:
    corners = torch.rand(count, 2, 2, generator=seeded(seed)).sort(dim=1).values
    boxes_xyxy = corners.reshape(count, 4)
    boxes_xyxy[:, 2:] += 0.02
    return boxes_xyxy.clamp(0, 1)


@st.composite
def pixel_boxes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """A box of whole pixels of a 120 x 90 picture, not smaller than 20."""
    x1, y1 = draw(st.integers(0, 100)), draw(st.integers(0, 70))
    return x1, y1, draw(st.integers(x1 + 20, 120)), draw(st.integers(y1 + 20, 90))


@settings(deadline=None)
@given(box=pixel_boxes(), seed=SEEDS, size=st.sampled_from([64, 97, 160]))
def test_content_stays_under_its_box(box, seed, size):
    x1, y1, x2, y2 = box
    image = torch.zeros(3, 90, 120, dtype=torch.uint8)
    image[:, y1:y2, x1:x2] = 255
    relative_xyxy = torch.tensor([[x1 / 120, y1 / 90, x2 / 120, y2 / 90]])
    config = AugmentationConfig(
        photometric=0, zoom_out=0.5, iou_crop=0.7, horizontal_flip=0.5, vertical_flip=0.5
    )
    image, boxes_xyxy, labels, _ = augment(
        image, relative_xyxy, torch.tensor([1]), torch.tensor([False]), size, config, seeded(seed)
    )
    # A crop holds the centre of some box, so the only one can't get lost.
    assert labels.tolist() == [1]
    bright = (image > 200).all(dim=0)  # the fill colour is darker
    columns, rows = bright.any(dim=0).nonzero(), bright.any(dim=1).nonzero()
    seen_xyxy = torch.tensor(
        [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=torch.float32
    )
    # A pixel on the edge is a blend: it counts as bright from 80 % on. Where a pixel of the picture
    # becomes several of the result, the blend is as wide as those are.
    blend = 1 + 0.5 * size / 90 / 0.3
    assert (seen_xyxy - boxes_xyxy[0] * size).abs().max() <= blend


@settings(deadline=None)
@given(count=st.integers(0, 20), seed=SEEDS)
def test_boxes_stay_in_the_picture_with_what_belongs_to_them(count, seed):
    boxes_xyxy = random_boxes(count, seed)
    labels = torch.arange(count) + 1
    difficult = torch.arange(count) % 3 == 0
    image, moved_xyxy, kept, kept_difficult = augment(
        random_image(60, 80), boxes_xyxy, labels, difficult, 64, ALL, seeded(seed)
    )
    assert image.shape == (3, 64, 64)
    assert image.dtype == torch.uint8
    assert moved_xyxy.shape == (len(kept), 4)
    assert moved_xyxy.dtype == torch.float32
    assert ((moved_xyxy >= 0) & (moved_xyxy <= 1)).all()
    assert (moved_xyxy[:, 2:] - moved_xyxy[:, :2] >= 0.5 / 64 - 1e-6).all()
    assert (kept[1:] > kept[:-1]).all()  # in order, none twice
    assert torch.equal(kept_difficult, difficult[kept - 1])


def test_same_generator_same_result_and_arguments_left_alone():
    arguments = random_image(50, 70), random_boxes(5), torch.arange(5) + 1, torch.zeros(5) > 0
    copies = [argument.clone() for argument in arguments]
    torch.manual_seed(0)
    first = augment(*arguments, 64, ALL, seeded(3))
    torch.manual_seed(1)  # the global generator plays no part
    second = augment(*arguments, 64, ALL, seeded(3))
    other = augment(*arguments, 64, ALL, seeded(4))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])
    assert all(torch.equal(a, b) for a, b in zip(arguments, copies, strict=True))


def test_everything_off_is_a_resize():
    image, boxes_xyxy = random_image(50, 70), random_boxes(4)
    varied, moved_xyxy, labels, _ = augment(
        image, boxes_xyxy, torch.arange(4) + 1, torch.zeros(4) > 0, 32, OFF, seeded(0)
    )
    resized, same_xyxy = resize_only(image, boxes_xyxy, 32)
    assert torch.equal(varied, resized)
    torch.testing.assert_close(moved_xyxy, boxes_xyxy)
    assert torch.equal(same_xyxy, boxes_xyxy)
    assert labels.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("size", [1, 2, 40, 200])
@pytest.mark.parametrize("shape", [(97, 131), (1, 50), (50, 1), (1, 1)])
def test_resize_is_antialiased_like_pillow(shape, size):
    image = random_image(*shape)
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    expected = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)).astype(int)
    resized, _ = resize_only(image, random_boxes(1), size)
    assert np.abs(resized.permute(1, 2, 0).numpy() - expected).max() <= 1


@settings(deadline=None)
@given(seed=SEEDS, largest=st.floats(1, 8))
def test_zoom_out_contains_the_picture(seed, largest):
    x1, y1, x2, y2 = zoom_out_window(largest, seeded(seed)).tolist()
    assert x1 <= 0
    assert y1 <= 0
    assert x2 >= 1 - 1e-12
    assert y2 >= 1 - 1e-12
    assert x2 - x1 == pytest.approx(y2 - y1)  # the picture keeps its shape
    assert x2 - x1 <= largest + 1e-9


@settings(deadline=None)
@given(seed=SEEDS, count=st.integers(1, 8), min_scale=st.floats(0.1, 0.9))
def test_crop_keeps_its_promises(seed, count, min_scale):
    boxes_xyxy = random_boxes(count, seed)
    crop = iou_crop_window(boxes_xyxy, 4 / 3, min_scale, seeded(seed))
    if crop.tolist() == [0, 0, 1, 1]:
        return
    width, height = (crop[2:] - crop[:2]).tolist()
    assert (crop >= 0).all()
    assert (crop <= 1).all()
    assert min(width, height) >= min_scale - 1e-9
    assert 0.5 - 1e-9 <= width / height * 4 / 3 <= 2 + 1e-9
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    assert ((centres > crop[:2]) & (centres < crop[2:])).all(dim=1).any()


def test_crops_are_spread_like_torchvisions():
    boxes_xyxy = torch.tensor([[0.25, 0.2, 0.7, 0.75], [0.6, 0.6, 0.9, 0.95]])
    ours = torch.stack([iou_crop_window(boxes_xyxy, 4 / 3, 0.3, seeded(s)) for s in range(600)])

    torch.manual_seed(0)
    sides = torch.tensor([400.0, 300.0] * 2)
    arguments = [
        torch.zeros(3, 300, 400, dtype=torch.uint8),
        tv_tensors.BoundingBoxes(boxes_xyxy * sides, format="XYXY", canvas_size=(300, 400)),
    ]
    crop = v2.RandomIoUCrop(min_scale=0.3, sampler_options=[0.0, 0.1, 0.3, 0.5, 0.7, 0.9])
    theirs = []
    for _ in range(600):
        at = crop.make_params(arguments)
        theirs.append([at["left"], at["top"], at["left"] + at["width"], at["top"] + at["height"]])

    def summary(crops: torch.Tensor) -> torch.Tensor:
        overlaps = box_iou(crops.float(), boxes_xyxy).amax(dim=1)
        crops_and_overlaps = torch.cat([crops.float(), overlaps[:, None]], dim=1)
        levels = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
        return crops_and_overlaps.quantile(levels, dim=0)

    expected = summary(torch.tensor(theirs) / sides)
    torch.testing.assert_close(summary(ours), expected, atol=0.07, rtol=0)


def test_crop_that_no_trial_can_give_is_none():
    speck_xyxy = torch.tensor([[0.0, 0.0, 1e-9, 1e-9]])  # no random crop begins at 0
    crop = iou_crop_window(speck_xyxy, 1.0, 0.3, seeded(0))
    assert crop.tolist() == [0, 0, 1, 1]


def test_windows_of_windows():
    outer = torch.tensor([-1.0, -1.0, 3.0, 1.0], dtype=torch.float64)
    inner = torch.tensor([0.25, 0.5, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(compose(outer, inner).tolist(), [0.0, 0.0, 1.0, 1.0])
    box_xyxy = torch.tensor([[0.2, 0.4, 0.6, 0.8]])
    step_by_step = to_window(to_window(box_xyxy, outer), inner)
    torch.testing.assert_close(step_by_step, to_window(box_xyxy, compose(outer, inner)))


def test_zoomed_out_picture_is_the_picture_among_fill():
    image = random_image(40, 40)
    window = torch.tensor([-0.5, -0.25, 1.5, 1.75], dtype=torch.float64)
    visible, corner, shown = resample_window(image, window, 80)
    canvas = fill_around(visible, corner, 80)
    assert corner == (20, 10)
    torch.testing.assert_close(shown, window)
    assert torch.equal(canvas[:, 10:50, 20:60], image)
    outside = torch.ones(80, 80, dtype=torch.bool)
    outside[10:50, 20:60] = False
    assert (canvas[:, outside] == torch.tensor(FILL_RGB)[:, None]).all()


def test_crop_is_the_rectangle_of_pixels():
    image = random_image(40, 60)
    window = torch.tensor([10 / 60, 5 / 40, 40 / 60, 35 / 40], dtype=torch.float64)
    visible, corner, shown = resample_window(image, window, 30)
    assert corner == (0, 0)
    torch.testing.assert_close(shown, window)
    assert torch.equal(visible, image[:, 5:35, 10:40])


@settings(deadline=None)
@given(
    corner=st.tuples(st.floats(-3, 0.95), st.floats(-3, 0.95)),
    side=st.tuples(st.floats(0.05, 4), st.floats(0.05, 4)),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.integers(4, 50),
)
def test_any_window_comes_out_nearly_as_asked(corner, side, shape, size):
    window = torch.tensor(
        [corner[0], corner[1], corner[0] + side[0], corner[1] + side[1]], dtype=torch.float64
    )
    if not (window[2:] > 0).all():
        return
    visible, (x, y), shown = resample_window(random_image(*shape), window, size)
    assert fill_around(visible, (x, y), size).shape == (3, size, size)
    assert x + visible.shape[2] <= size
    assert y + visible.shape[1] <= size
    assert torch.isfinite(shown).all()
    assert (shown[2:] > shown[:2]).all()


def test_boxes_at_the_edge_of_a_window():
    window = torch.tensor([0.0, 0.0, 0.5, 0.5], dtype=torch.float64)
    boxes_xyxy = torch.tensor(
        [
            [0.1, 0.1, 0.3, 0.4],  # inside
            [0.3, 0.3, 0.6, 0.6],  # centre inside: clipped
            [0.3, 0.1, 0.8, 0.2],  # centre outside
            [0.1, 0.1, 0.2, 0.104],  # too thin
        ]
    )
    clipped_xyxy, kept = clip_to_window(boxes_xyxy, window, min_side=0.01)
    assert kept.tolist() == [0, 1]
    torch.testing.assert_close(
        clipped_xyxy, torch.tensor([[0.2, 0.2, 0.6, 0.8], [0.6, 0.6, 1.0, 1.0]])
    )


@pytest.mark.parametrize(
    ("axis", "flip"), [(0, reference.horizontal_flip), (1, reference.vertical_flip)]
)
def test_flip_like_torchvision(axis, flip):
    boxes_xyxy = random_boxes(6)
    expected = flip(tv_tensors.BoundingBoxes(boxes_xyxy, format="XYXY", canvas_size=(1, 1)))
    torch.testing.assert_close(flip_boxes(boxes_xyxy, axis), expected.as_subclass(torch.Tensor))
    torch.testing.assert_close(flip_boxes(flip_boxes(boxes_xyxy, axis), axis), boxes_xyxy)


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("brightness", 0.875),
        ("brightness", 1.125),
        ("contrast", 0.5),
        ("contrast", 1.5),
        ("saturation", 0.5),
        ("saturation", 1.5),
    ],
)
def test_colours_like_torchvision(name, factor):
    image = random_image(20, 30)
    factors = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, name: factor}
    expected = getattr(reference, f"adjust_{name}")(image, factor)
    changed = change_colours(image, **factors, hue=0.0)
    assert (changed.int() - expected.int()).abs().max() <= 1


def hue_degrees(image: torch.Tensor) -> torch.Tensor:
    red, green, blue = image.double()
    return torch.rad2deg(torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue))


@pytest.mark.parametrize("turns", [-0.05, 0.05])
def test_hue_turns_by_as_much_as_torchvision_turns_it(turns):
    image = random_image(20, 30) // 3 + 85  # muted colours: neither way leaves the cube
    image = image[:, image.amax(dim=0) - image.amin(dim=0) > 40][:, None]
    changed = change_colours(image, 1.0, 1.0, 1.0, turns)
    expected = reference.adjust_hue(image, turns)
    ours, theirs = (
        (hue_degrees(turned) - hue_degrees(image) + 180) % 360 - 180
        for turned in (changed, expected)
    )
    assert float(theirs.mean()) == pytest.approx(360 * turns, abs=2)
    assert float(ours.mean()) == pytest.approx(360 * turns, abs=2)
    assert (ours - theirs).abs().max() < 12


@pytest.mark.parametrize("turns", [-0.05, 0.05])
def test_hue_and_saturation_leave_the_luma(turns):
    image = random_image(20, 30) // 3 + 85
    luma = torch.tensor([0.2989, 0.587, 0.114])
    changed = change_colours(image, 1.0, 1.0, 1.3, turns)
    before, after = (torch.einsum("c,chw->hw", luma, p.float()) for p in (image, changed))
    assert (after - before).abs().max() < 1


def test_grey_keeps_its_grey_when_hue_and_saturation_change():
    grey = random_image(20, 30)[:1].repeat(3, 1, 1)
    changed = change_colours(grey, 1.0, 1.0, 1.5, 0.05)
    assert (changed.int() - grey.int()).abs().max() <= 1


def test_strength_and_probability_of_colours():
    image = random_image(16, 16)
    assert torch.equal(distort_colours(image, 1.0, 0.0, seeded(0)), image)
    assert torch.equal(distort_colours(image, 0.0, 1.0, seeded(0)), image)

    def mean_change(strength: float) -> float:
        changed = [distort_colours(image, 1.0, strength, seeded(s)).float() for s in range(20)]
        return float((torch.stack(changed) - image).abs().mean())

    assert 0 < mean_change(0.2) < 0.5 * mean_change(1.0)


def test_picture_without_objects_stays_in_view():
    """Zoomed out and cropped, still a part of the picture shows: not only fill."""
    image = torch.full((3, 40, 40), 255, dtype=torch.uint8)
    config = AugmentationConfig(photometric=0, zoom_out=1, iou_crop=1)
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0) > 0
    for seed in range(30):
        varied, boxes_xyxy, *_ = augment(image, *nothing, 32, config, seeded(seed))
        assert (varied == 255).any()
        assert boxes_xyxy.shape == (0, 4)
