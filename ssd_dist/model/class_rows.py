"""Class scores of weights that were trained on other classes: which rows of the head are kept.

The last convolution of a classification head has C + 1 rows for each prior of a cell, background
first. Where the names of both sides' classes are known, a class keeps its rows by its name,
wherever it stands, and the background keeps its own; the others start anew. Where they are not, as
many classes as before are taken for the same ones, and other numbers start all of them anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from ssd_dist.model.ssd import SSD


@dataclass(frozen=True, slots=True)
class ClassRows:
    """What becomes of the class scores."""

    state: dict[str, Tensor]
    """The source's tensors, with the rows in the model's order."""
    anew: frozenset[str]
    """Names of the class scores that keep the model's own values, all of them."""
    note: str
    """For the log, where any class keeps its rows and another does not; else empty."""


def fit_class_rows(
    model: SSD,
    state: Mapping[str, Tensor],
    source_names: Sequence[str] | None,
    own_names: Sequence[str] | None,
) -> ClassRows:
    """Brings a source's class scores into the order of the model's classes.

    Args:
        model: with the values that classes start from which the source does not know.
        state: the source's tensors by the model's names.
        source_names: its classes, label 1 first; None: not known.
        own_names: the model's; None: not known.
    """
    fitted, anew = dict(state), set()
    shared: dict[int, int] | None = None  # label of the model → label of the source
    if source_names is not None and own_names is not None:
        labels = {name: label for label, name in enumerate(source_names, start=1)}
        shared = {
            label: labels[name] for label, name in enumerate(own_names, start=1) if name in labels
        }
    own = model.state_dict()
    for name, num_priors in _class_scores(model).items():
        given = state.get(name)
        if given is None or given.shape[0] % num_priors or given.shape[1:] != own[name].shape[1:]:
            continue  # refused where the tensors are loaded
        num_given = given.shape[0] // num_priors - 1
        if shared is None or source_names is None or len(source_names) != num_given:
            keeps = num_given == model.num_classes
        elif shared:
            rows = own[name].clone().unflatten(0, (num_priors, -1))
            before = given.unflatten(0, (num_priors, -1))
            for label, old in {0: 0, **shared}.items():
                rows[:, label] = before[:, old].to(rows.dtype)
            fitted[name], keeps = rows.flatten(0, 1), True
        else:
            keeps = False
        if not keeps:
            del fitted[name]
            anew.add(name)
    return ClassRows(fitted, frozenset(anew), _note(shared, own_names))


def _class_scores(model: SSD) -> dict[str, int]:
    """The tensors that give class scores → priors of a cell of their map."""
    found: dict[str, int] = {}
    predictors = model.head.classification_head.module_list
    for i, (predictor, num_priors) in enumerate(
        zip(predictors, model.num_priors_per_cell, strict=True)
    ):
        *_, (path, last) = [
            (path, module)
            for path, module in predictor.named_modules()
            if isinstance(module, nn.Conv2d)
        ]
        prefix = ".".join(filter(None, ("head.classification_head.module_list", str(i), path)))
        found |= {f"{prefix}.{name}": num_priors for name, _ in last.named_parameters()}
    return found


def _note(shared: Mapping[int, int] | None, own_names: Sequence[str] | None) -> str:
    if not shared or own_names is None:
        return ""
    kept = [own_names[label - 1] for label in shared]
    new = [name for label, name in enumerate(own_names, start=1) if label not in shared]
    said = f"class scores kept by name for {_listed(kept)}"
    return f"{said}, anew for {_listed(new)}" if new else said


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
