"""A service's token: made for its owner alone, read as it is, compared as a whole."""

import stat

import pytest

from ssd_dist.distributed.serving_token import admits, is_loopback, read_token


def test_a_token_that_is_not_there_is_made_and_stays(tmp_path):
    path = tmp_path / "token"
    token = read_token(path)
    assert len(token) >= 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_token(path) == token
    assert read_token(tmp_path / "other") != token


@pytest.mark.parametrize("content", ["", "short", "with a blank in it", "sixteen or möre!!"])
def test_what_can_be_no_token_is_refused_by_the_file_s_name(content, tmp_path):
    path = tmp_path / "token"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{path}: a token is at least 16") as told:
        read_token(path)
    assert not content or content not in str(told.value)


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"token: there is no folder \S*absent"):
        read_token(tmp_path / "absent" / "token")


@pytest.mark.parametrize(
    ("header", "admitted"),
    [
        ("Bearer 0123456789abcdef", True),
        ("bearer  0123456789abcdef ", True),
        ("Bearer 0123456789abcde", False),
        ("Bearer 0123456789abcdef0", False),
        ("Bearer ", False),
        ("Bearer ünïcödé", False),
        ("Basic 0123456789abcdef", False),
        ("0123456789abcdef", False),
        (None, False),
    ],
)
def test_only_the_whole_token_admits(header, admitted):
    assert admits(header, "0123456789abcdef") is admitted


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False)],
)  # fmt: skip
def test_which_addresses_are_this_machine_s_alone(host, loopback):
    assert is_loopback(host) is loopback
