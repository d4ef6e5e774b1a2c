"""Priors that fit the training boxes: `model.priors: fitted`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from ssd_dist.config import Config, ModelConfig
from ssd_dist.data.readers import open_split
from ssd_dist.model.ssd import SSD, build_model
from ssd_dist.ops.prior_fit import fit_priors
from ssd_dist.ops.priors import evenly_spaced_scales
from ssd_dist.structures import Annotation


def with_fitted_priors(config: Config, data: str) -> Config:
    """The configuration with its priors in numbers: where it says `fitted`, those that fit the
    boxes of the training split; else as it is.

    What starts a training or a search calls this once, so that its experiment and its checkpoints
    hold the numbers, and none is fitted anew. The same data give the same numbers.

    Raises as `open_split`, and ValueError for a split without an object that counts.
    """
    if config.model.priors != "fitted":
        return config
    names = config.data.class_names
    split = open_split(data, config.data.train_split, names, data_format=config.data.format)
    return dataclasses.replace(config, model=fitted_model(config.model, split.annotations))


def fitted_model(config: ModelConfig, annotations: Sequence[Annotation]) -> ModelConfig:
    """The model with `prior_scales`, and the `aspect_ratios` where they are the configuration's,
    that fit the boxes; difficult objects, which are no targets, are left out.

    There are as many ratios as before. torchvision's detectors keep theirs, for which their heads
    are made.

    Raises ValueError without an object that counts.
    """
    given = dataclasses.replace(config, priors="given")
    model = build_model(given, 1, load_weights=False)
    shared = config.architecture in ("ssd", "ssdlite")
    centres, ratios = _maps(model)
    starts = [evenly_spaced_scales(len(centres), 0.07, 0.9)]
    if config.prior_scales is not None:
        starts.append(config.prior_scales)
    fit = fit_priors(
        _relative_boxes(annotations),
        centres,
        [config.aspect_ratios] * len(centres) if shared else ratios,
        starts,
        share_ratios=shared,
    )
    aspect_ratios = fit.aspect_ratios[0] if shared else config.aspect_ratios
    return dataclasses.replace(given, prior_scales=fit.scales, aspect_ratios=aspect_ratios)


def _maps(model: SSD) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[list[float]]]:
    """Of each feature map: the x of its columns and the y of its rows, and its priors' ratios."""
    counts = [
        rows * columns * cell
        for (rows, columns), cell in zip(
            model.feature_sizes, model.num_priors_per_cell, strict=True
        )
    ]
    centres, ratios = [], []
    parts = torch.split(model.priors_cxcywh.double(), counts)
    for part, cell in zip(parts, model.num_priors_per_cell, strict=True):
        x, y = (part[::cell, axis].unique(sorted=True).numpy() for axis in (0, 1))
        centres.append((x, y))
        # Behind the two squares, each ratio before its inverse.
        shapes = part[2:cell:2, 2:]
        ratios.append((shapes[:, 0] / shapes[:, 1]).tolist())
    return centres, ratios


def _relative_boxes(annotations: Sequence[Annotation]) -> np.ndarray:
    """(N, 4) float64: the corners of all boxes that count, relative to their pictures."""
    parts = [
        each.boxes_xyxy[~each.difficult].astype(np.float64)
        / np.array([each.width, each.height] * 2)
        for each in annotations
    ]
    return np.concatenate([np.zeros((0, 4)), *parts])
