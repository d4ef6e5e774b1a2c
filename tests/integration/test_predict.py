"""Prediction of pictures that belong to no data set: each once, however it is spread or cut off."""

import csv
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from running import kill, read_json, run_job, start_job, wait_until

from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.data.single import network_input, read_upright
from ssd_dist.distributed.prediction_record import Record
from ssd_dist.distributed.prediction_stream import NUM_SLOTS, detect_in_slots
from ssd_dist.model.restored import restored

NUM_PICTURES = 30


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(NUM_PICTURES):
        pixels = np.random.default_rng(i).integers(0, 256, (60 + i, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture
def predict(random_checkpoint, ray_server, tmp_path):
    """Runs the job on the tests' Ray; gives the finished process and the results' folder."""

    def run(*arguments, out="out"):
        done = run_job(
            "predict.py", "--checkpoint", random_checkpoint, "--out", tmp_path / out,
            "--score-threshold", 0, *arguments, env=ray_server.environment, timeout=500,
        )  # fmt: skip
        return done, tmp_path / out

    return run


def test_neither_workers_nor_batches_change_anything(predict, pictures, random_checkpoint):
    first, reference = predict(pictures, "--workers", 1, "--batch-size", 16, out="first")
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    assert {path.name for path in reference.iterdir()} == {
        "detections.json", "detections.csv", "coco.json",
    }  # fmt: skip
    second, out = predict(pictures, "--workers", 2, "--batch-size", 3, "--pictures", out="second")
    assert second.returncode == 0, second.stderr
    assert (out / "detections.json").read_bytes() == (reference / "detections.json").read_bytes()
    assert (out / "coco.json").read_bytes() == (reference / "coco.json").read_bytes()
    drawn = sorted(path.name for path in (out / "pictures").iterdir())
    assert drawn == [f"{i:03d}.jpg" for i in range(NUM_PICTURES)]

    # And they are what this process finds in the same places.
    loaded = load_checkpoint(random_checkpoint)
    images = [network_input(read_upright(pictures / f"{i:03d}.png"), 64) for i in range(4)]
    assert NUM_SLOTS["cpu"] == 4
    torch.set_num_threads(1)
    alone = detect_in_slots(restored(loaded), torch.stack(images), range(4), loaded.config)
    rows = read_json(reference / "detections.json")
    for i, (_, _, scores) in enumerate(alone):
        found = [row["score"] for row in rows if row["image_id"] == f"{i:03d}"]
        assert found == scores.tolist()


def test_a_prediction_that_was_killed_goes_on(
    predict, pictures, random_checkpoint, ray_server, tmp_path
):
    """Bit for bit as if nothing had happened, and nothing is predicted again."""
    whole, reference = predict(pictures, "--batch-size", 2, out="whole")
    assert whole.returncode == 0, whole.stderr
    out, log = tmp_path / "cut", tmp_path / "log"
    process = start_job(
        "predict.py", "--checkpoint", random_checkpoint, "--out", out, "--score-threshold", 0,
        "--batch-size", 2, "--workers", 1, pictures, env=ray_server.environment, log=log,
    )  # fmt: skip

    def num_done():
        if not (out / "record.sqlite").exists():
            return 0
        record = Record(out / "record.sqlite")
        try:
            return record.num_done()
        finally:
            record.close()

    wait_until(lambda: num_done() > 0, 200, log.read_text)
    kill(process)
    before = num_done()
    assert 0 < before < NUM_PICTURES
    assert not (out / "detections.json").exists()

    refused, _ = predict(pictures, "--batch-size", 2, out="cut")
    assert refused.returncode == 1
    assert "go on with it by --resume" in refused.stderr
    other, _ = predict(pictures, "--resume", "--pictures", out="cut")
    assert other.returncode == 1
    assert "begun otherwise (pictures)" in other.stderr
    done, _ = predict(pictures, "--batch-size", 2, "--resume", out="cut")
    assert done.returncode == 0, done.stderr
    assert f"predicting {NUM_PICTURES - before} of {NUM_PICTURES} pictures" in done.stdout
    for name in ("detections.json", "coco.json", "detections.csv"):
        assert (out / name).read_bytes() == (reference / name).read_bytes()
    assert not list(out.glob("record.sqlite*"))
    again, _ = predict(pictures, out="cut")
    assert again.returncode == 1
    assert "holds the results of a prediction" in again.stderr


def test_pictures_that_can_t_be_read_are_skipped_and_told(predict, pictures, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(pictures, mixed)
    (mixed / "005.png").write_bytes((mixed / "005.png").read_bytes()[:900])
    (mixed / "notes.jpg").write_text("no picture")
    misnamed = mixed / os.fsdecode(b"\xff.png")
    shutil.copy(pictures / "000.png", misnamed)
    done, out = predict(mixed)
    misnamed.unlink()
    assert done.returncode == 3
    assert f"3 of {NUM_PICTURES + 2} pictures can't be read" in done.stdout
    with (out / "unreadable.csv").open(newline="") as file:
        told = {row["image_id"]: row["problem"] for row in csv.DictReader(file)}
    assert set(told) == {"005", "notes", r"\udcff"}
    assert "not UTF-8" in told[r"\udcff"]
    assert str(mixed / "005.png") in told["005"]
    assert len(read_json(out / "coco.json")["images"]) == NUM_PICTURES - 1

    strict, out = predict(mixed, "--strict", out="strict")
    assert strict.returncode == 1
    [line] = strict.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "can't" in line or "not readable" in line
    assert not (out / "detections.json").exists()
    shutil.copy(pictures / "005.png", mixed / "005.png")
    shutil.copy(pictures / "000.png", mixed / "notes.jpg")
    mended, out = predict(mixed, "--strict", "--resume", out="strict")
    assert mended.returncode == 0, mended.stderr
    assert len(read_json(out / "coco.json")["images"]) == NUM_PICTURES + 1


def test_frames_of_a_video(predict, tmp_path):
    av = pytest.importorskip("av", reason="the extra `video` is not installed")
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(10):
            pixels = np.full((48, 64, 3), 20 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    done, out = predict(path, "--batch-size", 3, "--pictures")
    assert done.returncode == 0, done.stderr
    rows = json.loads((out / "detections.json").read_text())
    assert list(dict.fromkeys(row["image_id"] for row in rows)) == [
        f"clip/{i:06d}" for i in range(10)
    ]
    brightness = [
        np.asarray(Image.open(out / "pictures" / "clip" / f"{i:06d}.jpg").convert("L")).mean()
        for i in range(10)
    ]
    assert brightness[9] > brightness[0]


def test_what_can_never_run_is_refused_before_ray_is_joined(predict, pictures, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, told in (
        ((), "no picture"),
        ((tmp_path / "absent",), "does not exist"),
        ((empty,), "no pictures in"),
        ((pictures, "--batch-size", 0), "--batch-size must be at least 1"),
        ((pictures, "--resume"), "nothing to resume"),
    ):
        done, out = predict(*arguments)
        assert done.returncode == 1
        [line] = done.stderr.strip().splitlines()
        assert told in line
        assert not list(out.glob("*"))
        assert "dashboard" not in done.stdout


def test_ctrl_c_ends_it_and_it_goes_on(predict, pictures, random_checkpoint, ray_server, tmp_path):
    log = tmp_path / "log"
    process = start_job(
        "predict.py", "--checkpoint", random_checkpoint, "--out", tmp_path / "out",
        "--score-threshold", 0, "--batch-size", 1, "--workers", 1, pictures,
        env=ray_server.environment, log=log,
    )  # fmt: skip
    wait_until(lambda: "predicting" in log.read_text(), 200, log.read_text)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=120) == 130
    done, out = predict(pictures, "--resume", "--batch-size", 1)
    assert done.returncode == 0, done.stderr
    assert len(read_json(out / "coco.json")["images"]) == NUM_PICTURES
