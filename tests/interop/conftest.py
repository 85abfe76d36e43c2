"""The original's interpreter for every test in this folder, built once and kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .harness import OriginalPeer, make_original_python
from .ours import Ours


@pytest.fixture(scope="session")
def original_python() -> Path:
    """Return the interpreter that runs auto-pi-lot 0.5.1."""
    if sys.platform == "win32":
        pytest.skip("the original needs fork, which Windows lacks")
    return make_original_python()


class Originals:
    """Open original peers that share a test's folder; all end with the test, last opened first."""

    def __init__(self, python: Path, folder: Path, stack: ExitStack) -> None:
        self._python = python
        self._folder = folder
        self._stack = stack
        self._count = 0

    def node(self, *arguments: Any, **options: Any) -> OriginalPeer:
        """Open a Net_Node: `OriginalPeer.node` without interpreter and home."""
        return self._open(OriginalPeer.node, *arguments, **options)

    def station(self, *arguments: Any, **options: Any) -> OriginalPeer:
        """Open a Station: `OriginalPeer.station` without interpreter and home."""
        return self._open(OriginalPeer.station, *arguments, **options)

    def terminal(self, *arguments: Any, **options: Any) -> OriginalPeer:
        """Open a Terminal_Station: `OriginalPeer.terminal` without interpreter and home."""
        return self._open(OriginalPeer.terminal, *arguments, **options)

    def pilot(self, *arguments: Any, **options: Any) -> OriginalPeer:
        """Open a Pilot_Station: `OriginalPeer.pilot` without interpreter and home."""
        return self._open(OriginalPeer.pilot, *arguments, **options)

    def _open(self, make: Callable[..., OriginalPeer], *arguments: Any, **options: Any) -> OriginalPeer:
        self._count += 1
        peer = make(self._python, self._folder / f"original_{self._count}", *arguments, **options)
        self._stack.callback(peer.close)
        return peer


@pytest.fixture
def originals(original_python: Path, tmp_path: Path) -> Iterator[Originals]:
    """Open original peers; they start side by side, and each waits for its start when it is first asked."""
    with ExitStack() as stack:
        yield Originals(original_python, tmp_path, stack)


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Ours]:
    """Open objects of ours; they end with the test, before the originals that were opened first."""
    with ExitStack() as stack:
        yield Ours(tmp_path / "ours", stack)
