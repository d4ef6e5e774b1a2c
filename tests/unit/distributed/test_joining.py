import io
import os
import socket
import subprocess
import sys

import pytest
import ray

from ssd_dist.allocator import ENVIRONMENT
from ssd_dist.distributed import joining
from ssd_dist.distributed.joining import join_ray, join_while_importing
from ssd_dist.distributed.lean_node import LeanNode, lean_node


@pytest.fixture
def listening(monkeypatch):
    """An address at which somebody listens, and the environment of a job that is to join it."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        yield address


@pytest.fixture
def answer(monkeypatch):
    """Lets `ray.init` write a line to standard error as C++ does, and raise."""

    def set_answer(line, error):
        def init(**options):
            os.write(2, line)
            raise error

        monkeypatch.setattr(ray, "init", init)

    return set_answer


def test_nobody_listens(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConnectionError, match=f"no Ray answers at {address}: start one"):
        join_ray()


def test_a_wrong_token_is_one_sentence(listening, answer, capfd):
    answer(b"rpc: InvalidAuthToken\n", ConnectionError("Failed to connect"))
    with pytest.raises(ConnectionError, match=r"another token than that in ~/\.ray/auth_token"):
        join_ray()
    assert capfd.readouterr().err == ""


def test_the_tokens_place_is_named(listening, answer, monkeypatch):
    answer(b"rpc: InvalidAuthToken\n", ConnectionError("Failed to connect"))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/secrets/token")
    with pytest.raises(ConnectionError, match="in /secrets/token"):
        join_ray()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hush")
    with pytest.raises(ConnectionError, match="in RAY_AUTH_TOKEN:") as caught:
        join_ray()
    assert "hush" not in str(caught.value)


def test_no_token_where_one_is_asked_for(listening, answer, monkeypatch):
    answer(b"rpc: InvalidAuthToken\n", ConnectionError("Failed to connect"))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ConnectionError, match="set RAY_AUTH_MODE=token"):
        join_ray()


def test_what_ray_said_of_another_error_is_not_lost(listening, answer, capfd):
    answer(b"the raylet died\n", RuntimeError("unknown"))
    with pytest.raises(RuntimeError, match="unknown"):
        join_ray()
    sys.stderr.flush()
    assert "the raylet died" in capfd.readouterr().err


@pytest.fixture
def given(monkeypatch):
    """Lets `ray.init` say what it was given: its runtime environment, and GLIBC_TUNABLES."""
    for name in ("RAY_ADDRESS", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(
        ray, "init", lambda **told: (told["runtime_env"], os.environ.get("GLIBC_TUNABLES"))
    )


def test_workers_of_a_ray_that_is_started_inherit_the_allocator_s_environment(given, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert join_ray() == (None, ENVIRONMENT["GLIBC_TUNABLES"])
    assert "GLIBC_TUNABLES" not in os.environ
    monkeypatch.setenv("GLIBC_TUNABLES", "the user's")
    assert join_ray() == (None, "the user's")
    assert os.environ["GLIBC_TUNABLES"] == "the user's"


@pytest.mark.parametrize("dashboard", [False, True])
def test_without_a_dashboard_nothing_is_gathered_for_it(given, monkeypatch, dashboard):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("RAY_event_stats", "7")
    monkeypatch.delenv("REPORTER_UPDATE_INTERVAL_MS", raising=False)
    monkeypatch.setattr(ray, "init", lambda **told: (told["include_dashboard"], dict(os.environ)))
    included, environment = join_ray(dashboard=dashboard)
    assert included is (None if dashboard else False)
    assert ("REPORTER_UPDATE_INTERVAL_MS" in environment) is not dashboard
    assert environment["RAY_event_stats"] == "7"  # the user's
    assert "REPORTER_UPDATE_INTERVAL_MS" not in os.environ


def test_workers_of_a_ray_that_runs_are_told_it(given, listening, monkeypatch):
    assert join_ray() == ({"env_vars": ENVIRONMENT}, None)
    monkeypatch.setenv("GLIBC_TUNABLES", "the user's")
    assert join_ray() == ({"env_vars": {"GLIBC_TUNABLES": "the user's"}}, "the user's")


@pytest.mark.parametrize("dashboard", [False, True])
def test_without_a_dashboard_the_node_that_is_started_is_lean(given, monkeypatch, dashboard):
    before = ray._private.node.Node
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr(ray, "init", lambda **_: ray._private.node.Node)
    assert join_ray(dashboard=dashboard) is (before if dashboard else LeanNode)
    assert ray._private.node.Node is before
    assert ray._private.utils.get_dashboard_dependency_error() is None


@pytest.mark.parametrize("address", [None, "", "local"])
def test_a_ray_that_is_started_asks_for_a_token_and_keeps_to_loopback(address, given, monkeypatch):
    """However its user says that there is none to join."""
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert environment_of_ray() == "token 0"
    kept = []
    monkeypatch.setattr(joining, "keep_token_private", lambda: kept.append(True))
    join_ray()
    assert kept == [True]


def test_a_ray_that_is_joined_says_itself_what_it_asks_for(given, listening, monkeypatch):
    assert environment_of_ray() == "None None"
    monkeypatch.setattr(joining, "keep_token_private", lambda: pytest.fail("it is not ours"))
    join_ray()


def environment_of_ray():
    """What this package sets when it is imported."""
    names = "RAY_AUTH_MODE", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    code = f"import os, ssd_dist.distributed; print(*map(os.environ.get, {names}))"
    environment = {name: value for name, value in os.environ.items() if name not in names}
    return subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip()


def test_what_joins_a_ray_that_runs_has_no_node_of_its_own_to_change(given, listening, monkeypatch):
    monkeypatch.setattr(ray, "init", lambda **_: ray._private.node.Node)
    assert join_ray() is ray._private.node.Node is not LeanNode


def test_a_lean_node_is_put_back_where_ray_can_t_be_started():
    before = ray._private.node.Node
    with pytest.raises(KeyboardInterrupt), lean_node():
        raise KeyboardInterrupt
    assert ray._private.node.Node is before


@pytest.mark.parametrize(("here", "expected"), [(True, "started"), (False, None)])
def test_only_on_a_ray_of_one_s_own_is_something_started_ahead(monkeypatch, here, expected):
    monkeypatch.setattr(joining, "join_ray", lambda **_: None)
    monkeypatch.setattr(joining, "started_here", lambda: here)
    assert join_while_importing("json", meanwhile=lambda: "started") == expected
    assert join_while_importing("json") is None


def test_modules_are_imported_also_where_ray_can_t_be_joined(listening, answer, monkeypatch):
    answer(b"", RuntimeError("unknown"))
    monkeypatch.delitem(sys.modules, "this", raising=False)
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # it speaks
    with pytest.raises(RuntimeError, match="unknown"):
        join_while_importing("this")
    assert "this" in sys.modules
