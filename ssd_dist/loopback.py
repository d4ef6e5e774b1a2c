"""Keeps what torch's workers say to each other on this machine."""

from __future__ import annotations

import ipaddress
import os
import socket

import psutil

_INTERFACES = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"


def is_loopback(address: str) -> bool:
    """Whether an IP address, without a port, is this machine's alone."""
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def keep_on_loopback() -> None:
    """Process groups of this process listen on loopback, unless the environment says otherwise:
    they would take whatever interface the machine's name stands for."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(a.family == socket.AF_INET and is_loopback(a.address) for a in addresses):
            for variable in _INTERFACES:
                os.environ.setdefault(variable, name)
            return
