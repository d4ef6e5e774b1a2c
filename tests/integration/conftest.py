"""What the integration tests share: a small data set of real files, and a Ray of their own."""

import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import psutil
import pytest
import yaml
from PIL import Image
from running import RAY, ROOT, wait_until

from ssd_dist.data.synthetic import synthetic_split

SPLIT_SIZES = {"train": 24, "val": 8, "test": 8}


@pytest.fixture(scope="session")
def voc_root(tmp_path_factory) -> Path:
    """A PASCAL VOC folder of 40 synthetic pictures as files."""
    root = tmp_path_factory.mktemp("data") / "VOC"
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for name, num_images in SPLIT_SIZES.items():
        split = synthetic_split(name, num_images=num_images)
        ids = []
        for index, annotation in enumerate(split.annotations):
            stem = f"{name}_{index:03d}"
            ids.append(stem)
            Image.fromarray(split.read_image(index)).save(root / "JPEGImages" / f"{stem}.jpg")
            objects = "".join(
                f"<object><name>{escape(split.class_names[label - 1])}</name>"
                "<difficult>0</difficult><bndbox>"
                + "".join(
                    f"<{side}>{value}</{side}>"
                    for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
                )
                + "</bndbox></object>"
                for box, label in zip(annotation.boxes_xyxy, annotation.labels, strict=True)
            )
            (root / "Annotations" / f"{stem}.xml").write_text(
                f"<annotation><filename>{stem}.jpg</filename>{objects}</annotation>"
            )
        (root / "ImageSets/Main" / f"{name}.txt").write_text("\n".join(ids))
    return root


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory) -> Path:
    """A configuration whose epoch takes a second."""
    path = tmp_path_factory.mktemp("configs") / "tiny.yaml"
    config = {
        "lr": 1e-3,
        "epochs": 3,
        "global_batch_size": 8,
        "model": {
            "backbone": "test_resnet.r160_in1k",
            "image_size": 64,
            "feature_strides": [8, 16],
            "neck_channels": 16,
            "num_extra_maps": 0,
        },
        "optimizer": {"name": "adamw", "ema_decay": 0.9},
        "search": {
            "trials": 4,
            "grace_epochs": 1,
            "space": {
                "alpha": {"low": 0.1, "high": 10, "log": True},
                "l2_lambda": {"low": 1e-6, "high": 1e-2, "log": True},
                "lr": {"low": 1e-5, "high": 1e-2, "log": True},
            },
        },
    }
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """Environment of the tests' processes: no Ray but their own, caches of their own."""
    folder = tmp_path_factory.mktemp("environment")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return {
        **inherited,
        # As an activated virtual environment: a submitted job asks for `python`.
        "PATH": os.pathsep.join([str(RAY.parent), os.environ["PATH"]]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(_token(folder)),
        "SSD_DIST_CACHE": str(folder / "cache"),
    }


@dataclass(frozen=True)
class RayServer:
    """A Ray head of two cores, and how to reach it."""

    environment: dict[str, str]
    """With RAY_ADDRESS."""
    dashboard: str
    head: psutil.Process

    def processes(self) -> list[psutil.Process]:
        """Every process of this Ray."""
        return self.head.children(recursive=True)

    def named(self, title: str) -> list[psutil.Process]:
        """The processes whose title contains `title`, such as `ray::RayTrainWorker`."""
        found = []
        for process in self.processes():
            try:
                if title in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found


@pytest.fixture(scope="session")
def ray_server(environment, tmp_path_factory):
    """A Ray of the tests' own: own ports, folder and token; ended by its processes' ids."""
    # Ray's sockets have to fit into 107 characters, so not below pytest's own folders.
    folder = Path("/tmp") / f"ssd_dist_ray_{os.getpid()}"
    # The agent's too: by default it is the same for every Ray of a machine, and of two such the
    # second would take no jobs.
    gcs, dashboard, agent = _free_ports(3)
    low = 20000 + os.getpid() % 100 * 100
    command = [
        str(RAY), "start", "--head", "--block", f"--port={gcs}", f"--temp-dir={folder}",
        f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
        "--num-cpus=2", "--num-gpus=0",
        "--object-store-memory=200000000", f"--min-worker-port={low}",
        f"--max-worker-port={low + 99}", "--disable-usage-stats",
    ]  # fmt: skip
    log = tmp_path_factory.mktemp("ray") / "head.log"
    with log.open("w") as output:
        head = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=ROOT)
    address = f"127.0.0.1:{gcs}"
    try:
        wait_until(lambda: _answers(address, environment), 90, log.read_text)
        wait_until(lambda: _listens(dashboard), 60, log.read_text)
        yield RayServer(
            environment={**environment, "RAY_ADDRESS": address},
            dashboard=f"http://127.0.0.1:{dashboard}",
            head=psutil.Process(head.pid),
        )
    finally:
        doomed = [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]
        for process in doomed:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(doomed, timeout=20)
        subprocess.run(["rm", "-rf", str(folder)], check=False)


def _answers(address: str, environment: dict[str, str]) -> bool:
    command = [str(RAY), "status", f"--address={address}"]
    return (
        subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
    )


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _token(folder: Path) -> Path:
    path = folder / "token"
    path.write_text("0123456789abcdef" * 4)
    return path
