#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Discovery of boards, against devices in software."""

import socket

import pytest

from fake_device import EtherboneServer, FakeDevice

from host.errors import LinkError
from host.link.discovery import discover

from tools.errors import UsageError


def test_those_that_answer_are_found():
    with FakeDevice() as device, EtherboneServer(device) as first, \
         EtherboneServer(device, ip="127.0.0.5", port=first.port), \
         EtherboneServer(device, ip="127.0.0.6", port=first.port, loss=1):
        assert discover("127.0.0.2/31", first.port, timeout=0.3) == ["127.0.0.2"]
        assert discover("127.0.0.4/30", first.port, timeout=0.3) == ["127.0.0.5"]
        assert discover("127.0.0.5",    first.port, timeout=0.3) == ["127.0.0.5"]


def test_a_lost_probe_is_repeated():
    with FakeDevice() as device, EtherboneServer(device, seed=1, loss=0.3) as server:
        assert discover("127.0.0.2", server.port, timeout=0.3) == ["127.0.0.2"]
        assert server.counts["lost"]


def test_strangers_are_no_boards():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.3", 0))
        port = stranger.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.3", 0))
        assert discover("127.0.0.3", port, timeout=0.1) == []
        stranger.settimeout(5)
        datagram, (address, source) = stranger.recvfrom(100)
        assert datagram.hex() == "4e6f11440000000000000000"
        assert (address, source) == ("127.0.0.1", port) # Bound on the interface that leads there, and on no other.


@pytest.mark.parametrize("network, message", [
    ("10.0.0.0/8", "network must have at most 1024 addresses, 10.0.0.0/8 has 16777216."),
    ("127.0.0.1:7", "network must be .*, is '127.0.0.1:7'."),
    ("board",      "network must be an IPv4 address, or a network such as 192.168.1.0/24, is 'board'."),
    ("1.2.3.400",  "network must be .*, is '1.2.3.400'."),
])
def test_bad_network(network, message):
    with pytest.raises(UsageError, match=message):
        discover(network)


def test_port_taken():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(LinkError, match=f"Cannot use UDP port {port} on 127.0.0.1"):
            discover("127.0.0.2", port)


@pytest.mark.parametrize("port", [0, -1, 70_000])
def test_no_port(port):
    with pytest.raises(UsageError, match=f"UDP port must be an integer from 1 to 65535, is {port}."):
        discover("127.0.0.2", port)
