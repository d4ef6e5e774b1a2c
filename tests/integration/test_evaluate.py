"""Evaluation over a cluster: every picture once, and the same detections however it is spread."""

import json
import subprocess

import numpy as np
import pytest
import torch
from running import RAY, ROOT, read_json, run_job

from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.config import load_config, replace_at
from ssd_dist.data import open_split
from ssd_dist.data.cache import open_cache
from ssd_dist.data.dataset import DetectionDataset
from ssd_dist.data.synthetic import synthetic_split
from ssd_dist.distributed.predict import gather, read_resized
from ssd_dist.distributed.prediction_stream import NUM_SLOTS, detect_in_slots
from ssd_dist.engine import Worker
from ssd_dist.model.ssd import build_model
from ssd_dist.training import train

CPU = torch.device("cpu")
# What a report says about the machine and the moment.
OF_THE_CLOCK = ("timing", "time_per_image_ms", "provenance")


@pytest.fixture(scope="module")
def config(tiny_config):
    """A network whose last bits change with the number of pictures in a call (on x86 at least), and
    which finds something everywhere."""
    changes = {"epochs": 1, "model.neck_channels": 64, "postprocess.score_threshold": 0}
    return replace_at(load_config(tiny_config), changes)


@pytest.fixture(scope="module")
def checkpoint(config, voc_root, tmp_path_factory):
    """The folder of a detector that was trained for an epoch."""
    folder = tmp_path_factory.mktemp("trained") / "checkpoint"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(config, str(voc_root), Worker(CPU), lambda report: report.save(folder))
    finally:
        torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def evaluate(checkpoint, voc_root, ray_server, tmp_path_factory):
    """Runs the job on the tests' Ray; gives the finished process and the report's folder."""

    def run(*arguments, data=voc_root):
        out = tmp_path_factory.mktemp("report")
        done = run_job(
            "evaluate.py", "--checkpoint", checkpoint, "--data", data, "--out", out,
            "--analysis", "none", *arguments, env=ray_server.environment,
        )  # fmt: skip
        return done, out

    return run


def numbers(folder):
    report = read_json(folder / "report.json")
    return {name: value for name, value in report.items() if name not in OF_THE_CLOCK}


def test_neither_workers_nor_batches_change_anything(evaluate, voc_root):
    """To the last bit: detections.json rounds nothing."""
    first, reference = evaluate("--workers", 1, "--batch-size", 16)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    detections = (reference / "detections.json").read_bytes()
    names = [annotation.image_id for annotation in open_split(str(voc_root), "test").annotations]
    found_in = dict.fromkeys(row["image_id"] for row in json.loads(detections))
    assert list(found_in) == names  # the split's order
    for workers, batch_size in ((1, 3), (2, 1), (2, 16)):
        done, out = evaluate("--workers", workers, "--batch-size", batch_size)
        assert done.returncode == 0, done.stderr
        assert (out / "detections.json").read_bytes() == detections
        assert numbers(out) == numbers(reference)


def test_it_agrees_with_the_training_s_validation(evaluate, checkpoint):
    done, out = evaluate("--split", "val")
    assert done.returncode == 0, done.stderr
    logged = load_checkpoint(checkpoint).metrics
    report = numbers(out)
    assert report["map_11pt"] == logged["map_11pt"]
    assert {f"ap_11pt/{name}": ap for name, ap in report["ap_11pt"].items()} == {
        name: value for name, value in logged.items() if name.startswith("ap_11pt/")
    }


def test_a_picture_that_breaks_is_told_in_one_line(evaluate, voc_root, tmp_path):
    """Its header can be read, so that only a worker finds out."""
    broken = tmp_path / "VOC"
    subprocess.run(["cp", "-r", voc_root, broken], check=True)
    picture = broken / "JPEGImages" / "test_005.jpg"
    picture.write_bytes(picture.read_bytes()[:1500])
    done, out = evaluate(data=broken)
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert str(picture) in line
    assert not list(out.iterdir())


def test_what_can_never_run_is_refused_at_once(evaluate):
    for arguments, told in (
        (("--workers", 64), "64 workers need 64 CPU cores, and this Ray has 2"),
        (("--workers", 0), "--workers must be at least 1"),
        (("--batch-size", 0), "--batch-size must be at least 1"),
        (("--split", "absent"), "absent"),
    ):
        done, out = evaluate(*arguments)
        assert done.returncode == 1
        [line] = done.stderr.strip().splitlines()
        assert told in line
        assert not list(out.iterdir())


def test_as_a_submitted_job(checkpoint, ray_server, tmp_path):
    command = [
        str(RAY), "job", "submit", f"--address={ray_server.dashboard}", "--working-dir", ".",
        "--", "python", "jobs/evaluate.py", "--checkpoint", str(checkpoint),
        "--data", "synthetic", "--out", str(tmp_path / "report"), "--analysis", "none",
    ]  # fmt: skip
    environment = {k: v for k, v in ray_server.environment.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_json(tmp_path / "report" / "report.json")["num_images"] == 100


@pytest.fixture(scope="module")
def pictures(voc_root):
    """Seven pictures of a split as the network takes them."""
    split = open_split(str(voc_root), "test")
    return torch.stack([read_resized(split, index, 64) for index in range(7)])


@pytest.fixture(scope="module")
def model(config):
    torch.manual_seed(0)
    return build_model(config.model, 5, load_weights=False).eval()


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("data", ["voc", "synthetic"])
def test_pictures_are_those_of_the_validation(data, voc_root, tmp_path):
    """Shrunk twice over, as the cache and then the batch does; bit for bit."""
    split = open_split(str(voc_root), "val")
    if data == "synthetic":
        split = synthetic_split("val", num_images=4)
    for size in (64, 320):  # below and above the pictures' own sides
        dataset = DetectionDataset(split, open_cache(split, size, tmp_path), size, None, seed=0)
        for index in range(4):
            assert torch.equal(read_resized(split, index, size), dataset[index].image)


@pytest.mark.parametrize(
    "batches",
    [[[0, 1, 2, 3, 4, 5, 6]], [[0], [1], [2], [3], [4], [5], [6]], [[6, 2], [5, 0, 3], [4, 1]]],
    ids=["all at once", "one by one", "mixed up"],
)
def test_a_picture_s_detections_depend_on_no_other(batches, pictures, model, config):
    reference = detect_in_slots(model, pictures, list(range(7)), config)
    assert all(len(scores) for _, _, scores in reference)
    for positions in batches:
        found = detect_in_slots(model, pictures[positions], positions, config)
        assert all(same(one, reference[p]) for one, p in zip(found, positions, strict=True))


def test_every_call_of_the_network_has_the_same_shape(pictures, model, config):
    calls = []
    hook = model.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0]))
    detect_in_slots(model, pictures[:3], [2, 3, 9], config)
    hook.remove()
    num_slots = NUM_SLOTS["cpu"]
    assert [call.shape for call in calls] == [(num_slots, 3, 64, 64)] * 2
    first, second = calls
    assert torch.equal(first[2], pictures[0])
    assert torch.equal(first[3], pictures[1])
    assert torch.equal(second[9 % num_slots], pictures[2])
    assert not first[:2].any()


def rows_of(split, positions):
    """Detections whose numbers tell the position."""
    for position in positions:
        box = np.array([[0.0, 0.25, 0.5, 1.0]], np.float32)
        yield position, box, np.array([1]), np.array([position / 10], np.float32)


def test_results_are_put_in_order_and_into_pixels(voc_root):
    split = open_split(str(voc_root), "test")
    counts = []
    found = gather(rows_of(split, [3, 0, 7, 1, 2, 6, 5, 4]), split.annotations, counts.append)
    assert counts == list(range(1, 9))
    for position, (one, annotation) in enumerate(zip(found, split.annotations, strict=True)):
        assert one.image_id == annotation.image_id
        assert one.scores == pytest.approx([position / 10])
        width, height = annotation.width, annotation.height
        assert one.boxes_xyxy.tolist() == [[0, height / 4, width / 2, height]]


@pytest.mark.parametrize(
    ("positions", "told"),
    [([0, 1, 2, 3, 4, 5, 6, 7, 2], "'test_002' came back from the workers twice"),
     ([7, 6, 5, 3, 2, 1, 0], "'test_004' did not come back")],
    ids=["twice", "never"],
)  # fmt: skip
def test_a_picture_that_comes_twice_or_never_is_named(positions, told, voc_root):
    split = open_split(str(voc_root), "test")
    with pytest.raises(RuntimeError, match=told):
        gather(rows_of(split, positions), split.annotations)
