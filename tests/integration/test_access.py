"""Nobody gets in who was not asked, and nothing secret is written down."""

import itertools
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from clusters import start_ray
from postgresql import PASSWORD, start_postgresql
from running import ROOT, run_job, start_job

from ssd_dist.loopback import is_loopback

AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/marked"
CONNECT = (
    "from ssd_dist.distributed.cluster import connect; from ssd_dist.terminal import Terminal; "
    "connect(Terminal())"
)


class Listening(threading.Thread):
    """Notes where a process and all below it listen, while it runs."""

    def __init__(self, process: subprocess.Popen) -> None:
        super().__init__(daemon=True)
        self._process = process
        self.addresses: dict[str, set[str]] = {}
        """Titles of the processes by the address."""

    def run(self) -> None:
        root = psutil.Process(self._process.pid)
        while self._process.poll() is None:
            try:
                processes = [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                break
            for process in processes:
                try:
                    for socket in process.net_connections("inet"):
                        if socket.status == psutil.CONN_LISTEN:
                            title = " ".join(process.cmdline())
                            self.addresses.setdefault(socket.laddr.ip, set()).add(title)
                except psutil.Error:
                    continue
            time.sleep(0.2)


@pytest.fixture(scope="module")
def home():
    """A home folder and Ray's folder below it: short, as Ray's sockets have to fit in."""
    folder = Path("/tmp") / f"ssd_dist_access_{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def searched(home, environment, tiny_config, tmp_path_factory):
    """A search of a job that starts its own Ray, and the report on it: the folder that has all
    files of both, what they printed among them, the search's sockets, and all that was secret."""
    environment = {k: v for k, v in environment.items() if not k.startswith("RAY_")}
    environment |= {"HOME": str(home), "RAY_TMPDIR": str(home), "AWS_SECRET_ACCESS_KEY": AWS_SECRET}
    folder = tmp_path_factory.mktemp("access")
    with start_postgresql() as url:
        environment["SSD_DIST_STUDY_STORAGE"] = url
        job = start_job(
            "tune.py", "--config", tiny_config, "--storage", folder, "--name", "s", "--trials", 1,
            "--epochs", 1, "--workers-per-trial", 2, env=environment, log=folder / "tune.log",
        )  # fmt: skip
        listening = Listening(job)
        listening.start()
        assert job.wait(timeout=400) == 0, (folder / "tune.log").read_text()
        listening.join()
        report = run_job(
            "evaluate.py", "--experiment", folder / "s", "--analysis", "none", env=environment,
            timeout=400,
        )  # fmt: skip
    assert report.returncode == 0, report.stderr
    (folder / "evaluate.log").write_text(report.stdout + report.stderr)
    shutil.copytree(home / "ray", folder / "ray_logs", ignore=_no_sockets, symlinks=True)
    token = (home / ".ray/auth_token").read_text()
    return folder, listening.addresses, [PASSWORD, quote(PASSWORD, safe=""), AWS_SECRET, token]


def _no_sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if stat.S_ISSOCK((Path(folder) / name).lstat().st_mode)]


def test_all_that_a_job_starts_listens_on_loopback(searched):
    _, addresses, _ = searched
    titles = " ".join(itertools.chain(*addresses.values()))
    for part in ("gcs_server", "raylet", "dashboard", "jobs/tune.py", "ray::RayTrainWorker"):
        assert part in titles
    assert {a: titles for a, titles in addresses.items() if not is_loopback(a)} == {}


def test_the_token_is_this_account_s_alone(searched, home):
    token = home / ".ray/auth_token"
    assert len(token.read_text()) == 64
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


def test_no_secret_is_written_down(searched):
    folder, _, secrets = searched
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    names = {path.name for path in files}
    assert {"best.json", "experiment.json", "study.json", "trials.json", "tune.log"} <= names
    assert {"report.html", "report.json", "evaluate.log", "raylet.out", "checkpoint.json"} <= names
    told = {
        str(path.relative_to(folder)): secret
        for path, secret in itertools.product(files, secrets)
        if secret.encode() in path.read_bytes()
    }
    assert told == {}


def test_an_open_ray_is_told(environment):
    environment = {**environment, "RAY_AUTH_MODE": "disabled"}
    with start_ray(environment, num_cpus=1) as server:
        joined = subprocess.run(
            [sys.executable, "-c", CONNECT], env=server.environment, cwd=ROOT,
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        address = server.environment["RAY_ADDRESS"].rpartition(":")[2]
    assert "warning: the Ray at " in joined.stdout
    assert f":{address} asks for no token, so whoever can reach it can run" in joined.stdout


def test_of_one_that_asks_for_a_token_nobody_is_warned(ray_server):
    joined = subprocess.run(
        [sys.executable, "-c", CONNECT], env=ray_server.environment, cwd=ROOT,
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "dashboard: http://127.0.0.1" in joined.stdout
    assert "warning" not in joined.stdout
