"""The search's artifacts: pictures of validation detections, linked with the study's trials.

A worker draws them into the checkpoint of every epoch that is its training's best so far; so they
are kept, resumed and deleted with that checkpoint, whatever becomes of the trial. When the trial
ends, those of its best checkpoint are copied into the experiment's folder.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.trial import FrozenTrial

from ssd_dist.distributed.buckets import below, open_location
from ssd_dist.evaluation.contact_sheet import CONTACT_SHEET


def attach_pictures(study: optuna.Study, trial: FrozenTrial, checkpoint: str, folder: Path) -> None:
    """Copies the pictures of a checkpoint into `folder` and links them with a trial that is not
    closed yet; `checkpoint` is a location.

    Once more, after a search was cut off in between, they take the place of what was linked then.
    A trial without any, or whose pictures can't be copied, goes without: they are no result.
    """
    with contextlib.suppress(OSError):
        filesystem, path = open_location(below(checkpoint, CONTACT_SHEET))
        with filesystem.open_input_file(path) as file:
            pictures = file.read()
        folder.mkdir(exist_ok=True)
        store = FileSystemArtifactStore(folder)
        for linked in get_all_artifact_meta(trial, storage=study._storage):
            if linked.filename == CONTACT_SHEET:
                store.write(linked.artifact_id, io.BytesIO(pictures))
                return
        with tempfile.TemporaryDirectory(prefix="ssd_dist_") as scratch:
            copy = Path(scratch) / CONTACT_SHEET
            copy.write_bytes(pictures)
            upload_artifact(
                artifact_store=store,
                file_path=str(copy),
                study_or_trial=trial,
                storage=study._storage,
            )
