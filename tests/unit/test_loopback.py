import os

import psutil
import pytest

from ssd_dist.loopback import is_loopback, keep_on_loopback

VARIABLES = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_addresses_of_this_machine_alone(address):
    assert is_loopback(address)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.0.7", "::ffff:10.0.0.1", "fe80::1"])
def test_addresses_that_others_reach(address):
    assert not is_loopback(address)


def test_the_interface_is_that_of_loopback(monkeypatch):
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")  # so that it is as before afterwards
        monkeypatch.delenv(variable)
    keep_on_loopback()
    (interface,) = {os.environ[variable] for variable in VARIABLES}
    assert "127.0.0.1" in {address.address for address in psutil.net_if_addrs()[interface]}


def test_what_the_environment_says_is_left(monkeypatch):
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "eth7")
    keep_on_loopback()
    assert {os.environ[variable] for variable in VARIABLES} == {"eth7"}
