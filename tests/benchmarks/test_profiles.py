from __future__ import annotations

from pathlib import Path

from benchmarks.profiles import read, shorten


def test_samples_count_for_the_top_of_the_stack(tmp_path: Path) -> None:
    record = tmp_path / "raw"
    inner = "run (env/lib/python3/site-packages/tornado/ioloop.py:12);<lambda> (src/pilotage/transport/links.py:3)"
    record.write_text(f"main (a.py:1);{inner} 30\nmain (a.py:1);{inner} 10\nmain (lib/a.py:1) 60\n")
    shares = read(record)
    assert shares.total == 100
    assert shares.files == {"pilotage/transport/links.py": 40, "lib/a.py": 60}
    assert shares.functions == {"<lambda> (pilotage/transport/links.py)": 40, "main (lib/a.py)": 60}


def test_files_are_told_by_their_package() -> None:
    assert shorten("env/lib/python3.11/site-packages/zmq/sugar/socket.py") == "zmq/sugar/socket.py"
    assert shorten("lib/python3.11/threading.py") == "python3.11/threading.py"
    assert shorten("checkout/src/pilotage/net/node.py") == "pilotage/net/node.py"
