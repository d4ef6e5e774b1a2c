"""A finished search to be watched, made without Ray, and `jobs/dashboard.py` on it."""

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from searching import Driver

from ssd_dist.config import Config, replace_at
from ssd_dist.data.synthetic import synthetic_split
from ssd_dist.distributed.study import trial_records
from ssd_dist.distributed.study_storage import StudyPlace, record_place
from ssd_dist.evaluation.contact_sheet import CONTACT_SHEET, draw_contact_sheet
from ssd_dist.evaluation.voc_ap import evaluate_voc
from ssd_dist.experiment import finish_experiment, ranked, write_trials
from ssd_dist.structures import Detections

ROOT = Path(__file__).parents[3]


def make_search(folder: Path, config: Config, place: StudyPlace) -> Driver:
    """A finished experiment in `folder`: the smaller a trial's log-alpha, the better it is."""
    split = synthetic_split("val", num_images=6)
    found = [
        Detections(a.image_id, a.boxes_xyxy[:1], a.labels[:1], np.full(1, 0.9, np.float32))
        for a in split.annotations
    ]
    result = evaluate_voc(split.annotations, found, split.class_names)
    pictures = folder / CONTACT_SHEET
    draw_contact_sheet(pictures, "epoch 1", split.annotations, found, result, split.read_image)

    record_place(folder, place)
    driver = Driver(config, place)
    for trial in range(config.search.trials):
        name = f"ray-{trial}"
        alpha = driver.start(name)["parameters"]["alpha"]
        for epoch in range(1, config.epochs + 1):
            value = (0.9 - 0.3 * abs(np.log10(alpha) - 0.1)) * epoch / config.epochs
            checkpoint = folder / "ray" / name / f"checkpoint_{epoch}"
            checkpoint.mkdir(parents=True)
            (checkpoint / CONTACT_SHEET).write_bytes(pictures.read_bytes())
            if driver.epoch(name, epoch, value, checkpoint):
                break
        driver.searcher.on_trial_complete(name, {})
        assert driver.searcher.failure is None, driver.searcher.failure
    records = trial_records(driver.study)
    best = ranked(records)[0]
    write_trials(folder, records)
    finish_experiment(
        folder, replace_at(config, best.parameters), best.map_11pt, Path(best.checkpoint)
    )
    return driver


@contextmanager
def dashboard(folder: Path, *arguments: object, **variables: str):
    """`python jobs/dashboard.py --experiment FOLDER …`; the process and the address that it told,
    and what it printed until then. Ended by a kill, if it still runs."""
    command = [sys.executable, "jobs/dashboard.py", "--experiment", str(folder)]
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # As from a terminal: a shell's background jobs, these tests maybe, ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    stop = threading.Timer(120, process.kill)  # or a test would wait for ever
    stop.start()
    try:
        shown = ""
        for line in process.stdout:
            shown += line
            if "Ctrl-C" in line:
                break
        yield process, re.search(r"the search: (\S+)", shown).group(1), shown
    finally:
        stop.cancel()
        process.kill()
        process.communicate()
