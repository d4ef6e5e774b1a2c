import stat
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from ssd_dist.distributed.access import is_open, keep_token_private


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_is_made_for_this_account_alone(home):
    keep_token_private()
    token = (home / ".ray/auth_token").read_text()
    assert len(token) == 64
    assert int(token, 16) > 0
    assert mode(home / ".ray/auth_token") == 0o600
    keep_token_private()
    assert (home / ".ray/auth_token").read_text() == token


def test_a_token_that_is_there_stays_and_becomes_private(home):
    (home / ".ray").mkdir()
    path = home / ".ray/auth_token"
    path.write_text("mine")
    path.chmod(0o644)
    keep_token_private()
    assert (path.read_text(), mode(path)) == ("mine", 0o600)


@pytest.mark.parametrize(
    "changes",
    [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "t"}, {"RAY_AUTH_TOKEN_PATH": "/a/b"}],
)
def test_a_token_that_is_not_asked_for_is_not_made(home, monkeypatch, changes):
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    keep_token_private()
    assert list(home.iterdir()) == []


class Answering(grpc.GenericRpcHandler):
    """Answers every request, or refuses each for want of a token."""

    def __init__(self, asks_for_token):
        self.asks_for_token = asks_for_token

    def service(self, details):
        def answer(request, context):
            if self.asks_for_token:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.mark.parametrize("asks_for_token", [False, True])
def test_whether_it_answers_without_a_token(asks_for_token):
    server = grpc.server(ThreadPoolExecutor(1), handlers=[Answering(asks_for_token)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert is_open(f"127.0.0.1:{port}") is not asks_for_token
    finally:
        server.stop(None).wait()


def test_what_does_not_answer_is_not_called_open(monkeypatch):
    monkeypatch.setattr("ssd_dist.distributed.access._TIMEOUT_S", 0.5)
    assert not is_open("127.0.0.1:1")
