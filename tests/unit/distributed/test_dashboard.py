"""`jobs/dashboard.py` as a user starts it, and the server in it."""

import contextlib
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
from searching import Driver, make_config
from watched import ROOT, dashboard, make_search

from ssd_dist.distributed import watching
from ssd_dist.distributed.study_storage import new_place, record_place, repeats_place
from ssd_dist.distributed.trial_lines import announce
from ssd_dist.distributed.watching import serve_dashboard


class Shown(list):
    """A terminal that remembers its lines."""

    def line(self, text):
        self.append(text)


@pytest.fixture
def folder(place, tmp_path):
    """An experiment whose search has begun."""
    folder = tmp_path / "experiment"
    record_place(folder, place)
    return folder


@pytest.fixture
def serve(monkeypatch):
    """Runs `serve_dashboard` until the test is over; its lines once it listens."""
    servers, threads = [], []

    def started(folder, **options):
        shown, ready = Shown(), threading.Event()
        listen = watching._listen

        def listening(*arguments):
            servers.append(listen(*arguments))
            return servers[-1]

        monkeypatch.setattr(watching, "_listen", listening)
        shown.line = lambda text: (shown.append(text), "Ctrl-C" in text and ready.set())
        threads.append(
            threading.Thread(target=serve_dashboard, args=(folder, shown), kwargs=options)
        )
        threads[-1].start()
        assert ready.wait(60)
        return shown, f"http://127.0.0.1:{servers[-1].server_port}"

    yield started
    for server in servers:
        server.shutdown()
    for thread in threads:
        thread.join()


def get(address):
    with urllib.request.urlopen(address, timeout=60) as answer:
        return json.loads(answer.read())


def run(*arguments):
    command = [sys.executable, "jobs/dashboard.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_it_serves_until_ctrl_c_and_ends_in_one_line(folder, driver):
    with dashboard(folder) as (process, address, _):
        assert address.startswith("http://127.0.0.1:80")
        base, _, path = address.partition("/dashboard/studies/")
        study = get(f"{base}/api/studies/{path}?after=0")
        assert study["name"] == driver.study.study_name
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
        assert (process.returncode, rest) == (130, "stopped\n")


def test_a_port_that_is_taken(folder, driver, serve):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"can't listen on 127.0.0.1, port {port}: Address"):
            serve_dashboard(folder, Shown(), port=port)
    with pytest.raises(OSError, match="port 99999"):
        serve_dashboard(folder, Shown(), port=99999)
    # Without --port the next free one is taken.
    first, _ = serve(folder)
    second, _ = serve(folder)
    assert first[1] != second[1]


def test_what_can_t_be_shown_is_told_and_not_made(tmp_path):
    folder = tmp_path / "one"
    with pytest.raises(FileNotFoundError, match="no experiment"):
        serve_dashboard(folder, Shown())
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="has no study: it is not a search"):
        serve_dashboard(folder, Shown())
    record_place(folder, new_place(folder, None))
    with pytest.raises(FileNotFoundError, match=r"study\.db does not hold the study 'one-"):
        serve_dashboard(folder, Shown())
    assert [path.name for path in folder.iterdir()] == ["study.json"]


def test_a_mistake_is_told_in_one_line_without_a_password(tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    record_place(folder, new_place(folder, "postgresql://me@127.0.0.1:1/none"))
    url = "postgresql://me:s3cret@127.0.0.1:1/none"
    done = run("--experiment", folder, "--study-storage", url)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "me:***@127.0.0.1:1/none" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr


def test_nothing_can_be_changed_through_it(folder, driver, tmp_path, serve):
    driver.run("a", lambda parameters: 0.5, tmp_path)
    _, base = serve(folder)
    for method, path in (
        ("DELETE", "/api/studies/1"),
        ("POST", "/api/studies/1/rename"),
        ("PUT", "/api/studies/1/note"),
        ("POST", "/api/trials/1/tell"),
    ):
        request = urllib.request.Request(f"{base}{path}", b"{}", method=method)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)
        assert refused.value.code == 403
    assert len(get(f"{base}/api/studies")["study_summaries"]) == 1


def test_a_search_under_way_goes_on_beside_it(folder, driver, tmp_path, serve):
    _, base = serve(folder)

    def trials():
        return get(f"{base}/api/studies/1?after=0")["trials"]

    assert trials()[0]["state"] == "Waiting"
    with contextlib.closing(sqlite3.connect(driver.place.url.database)) as writer:
        writer.execute("BEGIN IMMEDIATE")  # what is committed is seen while another writes
        assert trials()[0]["state"] == "Waiting"
        writer.rollback()
    # A page that asks again and again, as an open one does, while the search writes.
    asking = threading.Event()
    states = set()

    def ask():
        while not asking.is_set():
            states.add(trials()[0]["state"])

    thread = threading.Thread(target=ask)
    thread.start()
    driver.run("a", lambda parameters: 0.5, tmp_path)
    end = time.monotonic() + 60  # the dashboard looks anew every few seconds
    while "Complete" not in states and time.monotonic() < end:
        time.sleep(0.1)
    asking.set()
    thread.join()
    assert "Complete" in states


def test_the_repeats_are_shown_where_there_are_any(folder, driver, serve):
    assert not any(line.startswith("its repeats") for line in serve(folder)[0])
    Driver(make_config(), repeats_place(driver.place))
    shown, base = serve(folder)
    [line] = [line for line in shown if line.startswith("its repeats: ")]
    name = get(f"{base}/api/studies/{line.rpartition('/')[2]}?after=0")["name"]
    assert name == f"{driver.study.study_name}-repeats"


def test_whoever_listens_elsewhere_is_told_that_all_can_read(folder, driver, serve):
    assert not any("password" in line for line in serve(folder)[0])
    assert any("no password" in line for line in serve(folder, host="0.0.0.0")[0])


def test_the_commands_are_told_as_they_are_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = Shown()
    announce(tmp_path / "my runs" / "one", None, shown)
    announce(tmp_path / "mirror", "s3://bucket/runs/one", shown)
    assert shown == [
        "its trials: python jobs/dashboard.py --experiment 'my runs/one'",
        "its curves: tensorboard --logdir 'my runs/one/tensorboard'",
        "its trials: python jobs/dashboard.py --experiment s3://bucket/runs/one",
        "its curves: tensorboard --logdir mirror/tensorboard",
    ]


def test_the_pictures_are_served(place, tmp_path, serve):
    folder = tmp_path / "experiment"
    driver = make_search(folder, make_config(epochs=1, trials=1), place)
    _, base = serve(folder)
    [trial] = get(f"{base}/api/studies/1?after=0")["trials"]
    [artifact] = trial["artifacts"]
    path = f"/artifacts/1/{driver.study.trials[0]._trial_id}/{artifact['artifact_id']}"
    with urllib.request.urlopen(base + path, timeout=60) as answer:
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert answer.read() == (folder / "validation.jpg").read_bytes()
