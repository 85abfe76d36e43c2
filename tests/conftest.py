"""What every test shares: a waiter with a deadline, no user's preferences, and no quiet skips in CI."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

T = TypeVar("T")
Eventually = Callable[..., object]


def wait_eventually(predicate: Callable[[], T], timeout_s: float = 5.0, interval_s: float = 0.005) -> T:
    """Return the first truthy value of `predicate`, asked again and again until the deadline.

    Raises:
        AssertionError: It stayed falsy for `timeout_s` seconds; the text shows its last value.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        # Looked at before the value, so that a slow predicate is still asked once after the deadline.
        over = time.monotonic() >= deadline
        value = predicate()
        if value:
            return value
        if over:
            name = getattr(predicate, "__qualname__", repr(predicate))
            raise AssertionError(f"{name} was still {value!r} after {timeout_s} s")
        time.sleep(interval_s)


def is_alive(process: psutil.Process) -> bool:
    """Tell whether it runs; one that has ended and that nobody has asked about yet, a zombie, does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it has ended between the two questions
        return False


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    """Wait for a condition: `eventually(predicate, timeout_s=5.0)`."""
    return wait_eventually


@pytest.fixture(scope="session", autouse=True)
def _no_preferences_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep this machine's preferences away from every test and from the processes it starts."""
    empty = tmp_path_factory.mktemp("prefs") / "prefs.toml"
    empty.touch()
    with pytest.MonkeyPatch.context() as patch:
        for variable in [name for name in os.environ if name.startswith("PILOTAGE_")]:
            patch.delenv(variable)
        patch.setenv("PILOTAGE_PREFS", str(empty))
        patch.setenv("PILOTAGE_KEYDIR", str(empty.parent / "no keys"))
        yield


@pytest.fixture(autouse=True)
def _a_disk_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a test leaves in journals away from the others."""
    monkeypatch.setenv("PILOTAGE_DATADIR", str(tmp_path_factory.getbasetemp() / f"data-{uuid.uuid4().hex}"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the checkout."""
    return Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "interop" in item.path.relative_to(Path(__file__).parent).parts:
            item.add_marker("interop")


def pytest_runtest_setup(item: pytest.Item) -> None:
    marker = item.get_closest_marker("only_on")
    if marker and not sys.platform.startswith(marker.args):
        pytest.skip(f"only on {', '.join(marker.args)}")


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"true", "1"}


def _blame(report: pytest.TestReport | pytest.CollectReport, what: str) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{what} was skipped, which CI counts as a failure: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    excused = hasattr(report, "wasxfail") or item.get_closest_marker("only_on")
    if _in_ci() and report.skipped and not excused:
        _blame(report, item.nodeid)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = yield
    if _in_ci() and report.skipped:
        _blame(report, collector.nodeid)
    return report
