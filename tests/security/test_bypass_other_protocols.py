"""There is nothing but TCP: what is not redirected is rejected, and nothing that root of a sandbox does changes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.security.conftest import gvisor_only, transparent_only

if TYPE_CHECKING:
    from tests.security.outbound import Outbound

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Errors of a place that leads nowhere, of a rule that rejects, and of a call that is not to be had.
NO_WAY = {"EACCES", "EPERM", "ENETUNREACH", "EHOSTUNREACH", "ECONNREFUSED", "ENOTCONN", "EADDRNOTAVAIL"}
NOT_HAD = {"EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "EPERM", "EACCES", "ENOPROTOOPT", "EINVAL", "ENOSYS"}

UDP = {
    "QUIC": ("8.8.8.8", 443),
    "names over QUIC": ("8.8.8.8", 853),
    "mDNS": ("224.0.0.251", 5353),
    "LLMNR": ("224.0.0.252", 5355),
    "NetBIOS": ("45.79.1.66", 137),
    "STUN": ("45.79.1.66", 3478),
    "WireGuard": ("45.79.1.66", 51820),
    "time": ("45.79.1.66", 123),
    "a synthetic address": ("198.18.0.10", 443),
    "metadata": ("169.254.169.254", 80),
}


@transparent_only
@pytest.mark.parametrize(("host", "port"), UDP.values(), ids=UDP)
async def test_a_datagram(mallory: Outbound, host: str, port: int) -> None:
    program = (
        "def act():\n"
        "    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:\n"
        f"        sock.settimeout(2); sock.connect(('{host}', {port})); sock.send(b'x' * 100); sock.recv(1)\n"
        "answer(outcome_of(act))"
    )
    assert await mallory.run(program) in NO_WAY
    assert mallory.internet.packets == []


SOCKETS = {
    "ICMP": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "GRE": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 47)",
    "raw IP": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 255)",
    "raw TCP": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 6)",
    "frames": "socket.socket(17, socket.SOCK_RAW, 0x0300)",
    "SCTP": "socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)",
    "DCCP": "socket.socket(socket.AF_INET, 6, 33)",
    "UDP-Lite": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136).sendto(b'x', ('8.8.8.8', 53))",
    "VSOCK": "socket.socket(40, socket.SOCK_STREAM)",
    "TIPC": "socket.socket(30, socket.SOCK_STREAM)",
    "Bluetooth": "socket.socket(31, socket.SOCK_RAW, 1)",
    "CAN": "socket.socket(29, socket.SOCK_RAW, 1)",
    "a mark": "socket.socket().setsockopt(socket.SOL_SOCKET, 36, 1)",
    "transparent": "socket.socket().setsockopt(0, 19, 1)",
    "a device of one's own": "socket.socket().setsockopt(socket.SOL_SOCKET, 25, b'lo2')",
}


@transparent_only
@pytest.mark.parametrize("act", SOCKETS.values(), ids=SOCKETS)
async def test_a_socket_that_is_not_to_be_had(mallory: Outbound, act: str) -> None:
    got = await mallory.run(f"answer(outcome_of(lambda: str({act})))")
    assert got in NOT_HAD | NO_WAY | {"ENODEV"}
    assert mallory.internet.packets == []


@transparent_only
async def test_an_echo_of_the_control_protocol(mallory: Outbound) -> None:
    program = (
        "def act():\n"
        "    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1) as sock:\n"
        "        sock.settimeout(2); sock.connect(('8.8.8.8', 0))\n"
        "        sock.send(b'\\x08\\0\\0\\0\\0\\1\\0\\1secret'); sock.recv(1)\n"
        "answer(outcome_of(act))"
    )
    assert await mallory.run(program) in NO_WAY | NOT_HAD
    assert mallory.internet.packets == []


@transparent_only
@pytest.mark.parametrize("host", ["2606:4700:4700::1111", "fe80::1", "fd00:ec2::254", "ff02::1", "64:ff9b::808:808"])
async def test_the_other_family(mallory: Outbound, host: str) -> None:
    program = (
        f"def tcp():\n    socket.create_connection(('{host}', 443), 3)\n"
        f"def udp():\n    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); sock.sendto(b'x', ('{host}', 53))\n"
        "answer([outcome_of(tcp), outcome_of(udp)])"
    )
    assert set(await mallory.run(program)) <= NO_WAY | NOT_HAD
    assert mallory.internet.packets == []


@transparent_only
async def test_an_address_of_another_sandbox_as_its_own(mallory: Outbound) -> None:
    program = (
        "def act(host):\n"
        "    with socket.socket() as sock:\n"
        "        sock.settimeout(3); sock.bind((host, 0)); sock.connect(('45.79.1.66', 443))\n"
        "        sock.sendall(b'x'); return sock.recv(1).decode()\n"
        "answer([outcome_of(lambda: act(host)) for host in ('10.0.0.9', '45.79.1.10', '198.18.0.3', '127.0.0.9')])"
    )
    got = await mallory.run(program)
    assert "x" not in got
    mallory.reached_nothing()


LEVERS = {
    "an nft rule": "nft flush ruleset || iptables -F",
    "a route": "ip route add default via 10.0.0.1",
    "a link": "ip link add veth0 type veth peer name veth1",
    "an address": "ip address add 10.9.9.9/24 dev lo",
    "lo down": "ip link set lo down",
    "forwarding": "echo 1 > /proc/sys/net/ipv4/ip_forward",
    "another default": "echo nameserver 8.8.8.8 > /etc/resolv.conf",
    "a TUN device": "test -c /dev/net/tun && cat /dev/net/tun",
}


@transparent_only
@pytest.mark.parametrize("command", LEVERS.values(), ids=LEVERS)
async def test_a_lever_that_root_has_on_other_machines(mallory: Outbound, command: str) -> None:
    await mallory.inside.shell(f"exec 2>/dev/null; {command}")
    program = "answer([direct('45.79.1.66', 443, b'x'), https('api.allowed.test')[-5:]])"
    first, second = await mallory.run(program)
    assert first in ("ECONNRESET", "")
    assert second == "est/\n"
    await mallory.refusals(("literal_ip", "45.79.1.66", 443))


@transparent_only
async def test_a_network_namespace_of_her_own_leads_nowhere(mallory: Outbound) -> None:
    done = await mallory.inside.shell(
        "unshare -rn sh -c 'curl -s --noproxy \"*\" --max-time 3 http://45.79.1.66/' 2>&1"
    )
    assert "served" not in done.stdout
    mallory.reached_nothing()


@transparent_only
async def test_netlink_changes_nothing(mallory: Outbound) -> None:
    program = (
        "def act(kind, flags, body):\n"
        "    with socket.socket(16, socket.SOCK_RAW, 0) as sock:\n"
        "        sock.settimeout(3); sock.bind((0, 0))\n"
        "        sock.send(struct.pack('IHHII', 16 + len(body), kind, flags, 1, 0) + body)\n"
        "        code = struct.unpack('i', sock.recv(4096)[16:20])[0]\n"
        "        return errno.errorcode[-code] if code else 'done'\n"
        "route = struct.pack('BBBBBBBBI', 2, 0, 0, 0, 254, 3, 0, 1, 0) + struct.pack('HHI', 8, 4, 1)\n"
        "link_down = struct.pack('BxHiII', 0, 0, 1, 0, 1)\n"
        "answer([outcome_of(lambda: act(24, 0x605, route)), outcome_of(lambda: act(16, 5, link_down))])"
    )
    assert set(await mallory.run(program)) <= NO_WAY | NOT_HAD


@gvisor_only
async def test_under_gvisor_there_is_nothing_but_the_proxy(mallory: Outbound) -> None:
    program = (
        "def udp(host, port):\n"
        "    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:\n"
        "        sock.settimeout(1); sock.connect((host, port)); sock.send(b'x'); sock.recv(1)\n"
        "hosts = ('45.79.1.66', '169.254.169.254', '10.0.0.1', '198.18.0.5', '2606:4700:4700::1111')\n"
        "links = [line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]]\n"
        "answer([links, [direct(host, 443, b'x') for host in hosts],\n"
        "        [outcome_of(lambda: udp(host, 53)) for host in ('8.8.8.8', '127.0.0.53')],\n"
        "        direct('api.allowed.test', 443), connect('api.allowed.test:443')])"
    )
    links, connections, datagrams, name, proxy = await mallory.run(program)
    assert links == ["lo"]
    assert set(connections) <= NO_WAY
    assert set(datagrams) <= NO_WAY
    assert (name, proxy) == ("no address", [200])
    assert mallory.internet.sites.connections == []
    assert mallory.internet.zone.asked("evil.test") == 0
