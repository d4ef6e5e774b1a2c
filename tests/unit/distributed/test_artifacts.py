"""Pictures of validation detections: drawn where an epoch is the best, linked when a trial ends."""

import io

import numpy as np
import optuna
import pytest
from optuna.artifacts import get_all_artifact_meta
from PIL import Image
from searching import Driver, make_config

from ssd_dist.data.cache import open_cache
from ssd_dist.data.dataset import DetectionDataset
from ssd_dist.data.synthetic import synthetic_split
from ssd_dist.distributed.buckets import below, open_location
from ssd_dist.distributed.worker import draw_pictures
from ssd_dist.evaluation.contact_sheet import CONTACT_SHEET
from ssd_dist.evaluation.voc_ap import evaluate_voc
from ssd_dist.structures import Detections
from ssd_dist.training import EpochReport
from ssd_dist.validation import Validation


@pytest.fixture(scope="module")
def validation(tmp_path_factory) -> Validation:
    """A detector that finds everything, in pictures as a training has them."""
    split = synthetic_split("val", num_images=8)
    cache = open_cache(split, 64, tmp_path_factory.mktemp("cache"))
    found = [
        Detections(a.image_id, a.boxes_xyxy, a.labels, np.full(len(a.labels), 0.9, np.float32))
        for a in split.annotations
    ]
    result = evaluate_voc(split.annotations, found, split.class_names)
    return Validation(DetectionDataset(split, cache, 64, None, 0), found, result)


def epoch_of(validation, map_11pt, best):
    metrics = {"epoch": 2, "map_11pt": map_11pt, "best_map_11pt": best}
    return EpochReport(metrics, lambda folder: None, validation)


def test_pictures_are_drawn_of_the_best_epoch_so_far_and_by_one_worker(validation, tmp_path):
    draw_pictures(epoch_of(validation, 0.4, best=0.5), tmp_path)
    draw_pictures(epoch_of(None, 0.5, best=0.5), tmp_path)
    assert list(tmp_path.iterdir()) == []
    draw_pictures(epoch_of(validation, 0.5, best=0.5), tmp_path)
    [path] = tmp_path.iterdir()
    picture = Image.open(path)
    assert path.name == CONTACT_SHEET
    assert picture.width > 800


def linked(driver) -> dict[int, list[bytes]]:
    """What is linked with each finished trial, by its number."""
    return {
        trial.number: [
            (driver.place.artifacts / meta.artifact_id).read_bytes()
            for meta in get_all_artifact_meta(trial, storage=driver.study._storage)
        ]
        for trial in driver.study.trials
        if trial.state.is_finished()
    }


def epoch(driver, name, number, value, folder):
    """An epoch whose checkpoint has pictures."""
    folder.mkdir()
    (folder / CONTACT_SHEET).write_bytes(folder.name.encode())
    return driver.epoch(name, number, value, folder)


def test_each_trial_gets_those_of_its_best_epoch_also_if_it_is_stopped(driver, tmp_path):
    driver.start("a")
    for number, value in enumerate((0.2, 0.6, 0.5), start=1):
        epoch(driver, "a", number, value, tmp_path / f"a{number}")
    driver.searcher.on_trial_complete("a", {})
    driver.start("b")
    assert epoch(driver, "b", 1, 0.1, tmp_path / "b1")  # stopped
    driver.searcher.on_trial_complete("b", {})
    assert linked(driver) == {0: [b"a2"], 1: [b"b1"]}


def test_a_lost_or_missing_picture_costs_no_trial(driver, tmp_path):
    driver.run("a", lambda parameters: 0.5, tmp_path)  # of checkpoints without any
    driver.start("b")
    for number in (1, 2, 3):
        epoch(driver, "b", number, 0.6, tmp_path / f"b{number}")
    driver.place.artifacts.write_text("a file where the folder should be")
    driver.searcher.on_trial_complete("b", {})
    assert [trial.state.name for trial in driver.study.trials[:2]] == ["COMPLETE"] * 2
    assert driver.searcher.failure is None


def test_a_resumed_search_links_them_once(driver, tmp_path, monkeypatch):
    driver.start("a")
    for number in (1, 2, 3):
        epoch(driver, "a", number, 0.1 * number, tmp_path / str(number))

    def killed(*args, **more):
        raise SystemExit

    # Killed when the pictures are linked and the trial is not closed yet …
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "tell", killed)
        with pytest.raises(SystemExit):
            driver.searcher.on_trial_complete("a", {})
    [half] = driver.place.artifacts.iterdir()
    half.write_bytes(b"")  # … and their file was written in part
    resumed = Driver(make_config(), driver.place)
    assert linked(resumed) == {0: [b"3"]}
    # What is finished stays as it is.
    again = Driver(make_config(), driver.place)
    assert linked(again) == {0: [b"3"]}
    assert len(list(driver.place.artifacts.iterdir())) == 1


def test_they_are_taken_out_of_a_bucket(driver, bucket, validation, tmp_path):
    draw_pictures(epoch_of(validation, 0.5, best=0.5), tmp_path)
    filesystem, root = open_location(below(bucket, "ray"))
    filesystem.create_dir(f"{root}/checkpoint")
    pictures = (tmp_path / CONTACT_SHEET).read_bytes()
    with filesystem.open_output_stream(f"{root}/checkpoint/{CONTACT_SHEET}") as file:
        file.write(pictures)
    driver.start("a")
    for number in (1, 2, 3):
        result = {"epoch": number, "map_11pt": 0.5}
        driver.searcher.report("a", result)
        driver.searcher.keep("a", below(bucket, "ray", "checkpoint"), result)
    driver.searcher.on_trial_complete("a", {})
    assert linked(driver)[0] == [pictures]
    Image.open(io.BytesIO(pictures)).verify()
