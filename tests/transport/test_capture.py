"""What tshark sees on the loopback interface (promise X1): names, keys and bodies in clear, or none of them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.transport.conftest import ZmqWorld
from tests.transport.locks import OUTSIDE

pytestmark = pytest.mark.only_on("linux")

SECRET = b"the animal is called Mousse"
LAST = b"\x00pilotage-capture-ends-here\x00"


@pytest.fixture
def tshark() -> str:
    """Give tshark's path, or skip, saying why it can't listen here."""
    path = shutil.which("tshark")
    if path is None:
        pytest.skip("tshark is missing: apt-get install tshark (.ci/run does)")
    if os.geteuid() != 0:
        pytest.skip("not root: tshark may not listen to the loopback interface")
    return path


@contextmanager
def capturing(tshark: str, port: int, file: Path) -> Iterator[subprocess.Popen[str]]:
    """Have tshark write all that passes a port into a file."""
    arguments = [tshark, "-q", "-i", "lo", "-f", f"tcp port {port} or udp port {port}", "-w", str(file)]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def captured(file: Path, port: int) -> bool:
    """Send a datagram that ends the capture, and tell whether it has been seen."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mark:
        mark.sendto(LAST, ("127.0.0.1", port))
    return file.exists() and LAST in file.read_bytes()


@pytest.mark.parametrize("is_locked", [True, False], ids=["by a key", "in clear"])
def test_nothing_can_be_read_in_a_capture(
    locked: ZmqWorld, tshark: str, tmp_path: Path, eventually: Eventually, is_locked: bool
) -> None:
    hub, file = locked.ends.listening("hub"), tmp_path / "all.pcapng"
    with capturing(tshark, hub.port, file):
        eventually(lambda: captured(file, hub.port), timeout_s=20, interval_s=0.1)
        cam = locked.ends.dialling("cam", hub.port, host=OUTSIDE if is_locked else "127.0.0.1")
        sends = [
            cam.send("hub", SECRET, key="DATA", frames=[SECRET * 100]),
            hub.send("cam", SECRET, key="START"),
        ]
        eventually(lambda: all(sent.is_delivered for sent in sends))
        before = file.read_bytes().count(LAST)
        eventually(
            lambda: captured(file, hub.port) and file.read_bytes().count(LAST) > before,
            timeout_s=20,
            interval_s=0.1,
        )
    seen = file.read_bytes()
    words = (SECRET, b"DATA", b"START", b"X-Pilotage", b"X-Name", b"Identity")
    assert (b"CURVE" in seen) is is_locked
    assert [word for word in words if word in seen] == ([] if is_locked else list(words))
