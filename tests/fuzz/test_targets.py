"""What was found once stays mended, and a short run finds nothing new; the long run is `make fuzz`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.fuzz.engine import Account, kept_inputs, run_plain
from tests.fuzz.run import is_bad, join, plan
from tests.fuzz.targets import TARGETS

SHORT = 200
LONGEST_S = 10.0


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_that_was_kept_does_harm(name: str) -> None:
    target = TARGETS[name]
    for data in [*target.seeds(), *kept_inputs(name)]:
        target.run(data)


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_nothing(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    account = Account(name, tmp_path / "report.json", tmp_path / "found")
    known = [*target.seeds(), *kept_inputs(name)]
    run_plain(account, target.run, known, int(time.time()), end=time.monotonic() + LONGEST_S, most=SHORT)
    assert not account.exceptions and not account.stalls, (account.exceptions, account.stalls)
    assert account.executions > len(known)


def _breaks(data: bytes) -> None:
    if b"!" in data:
        raise KeyError("no documented error")


def _stalls(data: bytes) -> None:
    end = time.process_time() + 1.1 * data.startswith(b"stall")
    while time.process_time() < end:
        continue


def test_what_breaks_or_stalls_a_target_is_counted_and_kept(tmp_path: Path) -> None:
    account = Account("planted", tmp_path / "report.json", tmp_path / "found")
    for data in (b"good", b"bad!", b"bad! again"):
        account.feed(_breaks, data)
    account.feed(_stalls, b"stall")
    account.write()
    told = json.loads((tmp_path / "report.json").read_text())
    assert (told["executions"], len(told["exceptions"]), len(told["stalls"])) == (4, 1, 1)
    assert "KeyError" in told["exceptions"][0] and told["slowest_s"] > 1
    assert {file.read_bytes() for file in (tmp_path / "found").iterdir()} == {b"bad!", b"stall"}
    assert is_bad(told) and is_bad(join([told, told])) and join([told, told])["executions"] == 8


def test_all_targets_get_their_share_of_the_time() -> None:
    slices = plan(list(TARGETS), 3600.0, 2)
    assert {name for name, _ in slices} == set(TARGETS)
    assert sum(seconds for _, seconds in slices) == pytest.approx(7200.0)
