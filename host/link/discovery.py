#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Which boards answer: a probe to each address of a network, or to its broadcast address."""

import ipaddress
import socket
import time

from host.errors import LinkError
from host.link.etherbone import DEFAULT_PORT, TRANSIENT, encode_probe, is_probe_reply, open_socket

from tools.errors import UsageError

# Constants ----------------------------------------------------------------------------------------

MOST_ADDRESSES = 1024
ROUNDS         = 3     # Probes to each address: the first one often goes the way of an ARP request.
GAP            = 0.001 # Seconds between two probes.

# Discovery ----------------------------------------------------------------------------------------

def discover(network: str, port: int = DEFAULT_PORT, timeout: float = 1.0) -> list[str]:
    """Addresses that answer an Etherbone probe.

    Parameters
    ----------
    network : "192.168.1.0/24", all its hosts are asked; or an address, a broadcast address such as "192.168.1.255" among
              them. Nothing is sent anywhere else.
    port    : UDP port of the boards' Etherbone. They answer to this port, so the host binds the same number, and only on
              the interface that leads to the network.
    timeout : Seconds to wait after the last probe.

    Returns
    -------
    list of str, in the order of their numbers.

    Raises
    ------
    UsageError : `network` is no network, or has more than 1024 addresses.
    LinkError  : no interface leads to it, or the port is taken.
    """
    addresses = _addresses(network)
    found: set[str] = set()
    with open_socket(addresses[-1], port, connect=False) as sock:
        for _ in range(ROUNDS):
            for address in addresses:
                if address not in found:
                    _send(sock, address, port)
                    _collect(sock, found, time.monotonic() + GAP)
            _collect(sock, found, time.monotonic() + timeout/ROUNDS)
    return sorted(found, key=ipaddress.ip_address)


def _addresses(network: str) -> list[str]:
    try:
        parsed = ipaddress.IPv4Network(network, strict=False)
    except ValueError as error:
        raise UsageError(f"network must be an IPv4 address, or a network such as 192.168.1.0/24, is {network!r}.") from error
    if parsed.num_addresses > MOST_ADDRESSES:
        raise UsageError(f"network must have at most {MOST_ADDRESSES} addresses, {network} has {parsed.num_addresses}.")
    return [str(address) for address in parsed.hosts()]


def _send(sock: socket.socket, address: str, port: int) -> None:
    try:
        sock.sendto(encode_probe(), (address, port))
    except OSError as error:
        if error.errno not in TRANSIENT:
            raise LinkError(f"Cannot send to {address} ({error}): check the network interface.") from error


def _collect(sock: socket.socket, found: set[str], deadline: float) -> None:
    """Add those that answer until the deadline."""
    while (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            datagram, (address, _) = sock.recvfrom(2048)
        except TimeoutError:
            return
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise LinkError(f"Cannot receive ({error}): check the network interface.") from error
            continue
        if is_probe_reply(datagram):
            found.add(address)
