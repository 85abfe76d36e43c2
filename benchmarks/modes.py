"""What is measured, and how often: each mode's question to the senders, its figures, its rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

REFERENCE, ORIGINAL, OURS = "raw_pyzmq", "autopilot_051", "ours"
JETSTREAM, OURS_DURABLE, OURS_ON_LOOP = "nats_jetstream", "ours_durable", "ours_on_loop"
OURS_DIRECT, OURS_TCP = "ours_direct", "ours_tcp"

CHUNK_BYTES, FRAME_BYTES = 8_192, 307_200
STREAM_MB_PER_S = 300.0
WANTED_MB_PER_S, WANTED_OF_DISK = 300.0, 0.7


@dataclass(frozen=True)
class Mode:
    """One way of measuring.

    Attributes:
        name: what it is called.
        title: what its table is headed with.
        figures: what the table shows; the first one is what ratios are of.
        rounds: how many slices of each peer.
        seconds: how long a slice sends.
        what: the method of the sender that is asked, without `measure_`.
        asks: its arguments.
        references: whose first figure the others' is divided by.
        warm_up_s: how long the slice is that is thrown away; 0 for none.
    """

    name: str
    title: str
    figures: tuple[str, ...]
    rounds: int
    seconds: float
    what: str
    asks: Mapping[str, Any] = field(default_factory=dict)
    references: tuple[str, ...] = (REFERENCE, ORIGINAL)
    warm_up_s: float = 0.3


def _bulk(size: int, window: int, direct: bool = False) -> dict[str, Any]:
    return {"size": size, "window": window, "direct": direct}


_ALL = (
    Mode(
        "acked",
        "acked 200-byte messages",
        ("rate_per_s", "cpu_s_per_10k"),
        # Beside ours stands what encryption costs it (`ours_curve`).
        *(5, 1.5, "acked", {"window": 512}, (REFERENCE, ORIGINAL, OURS)),
    ),
    Mode(
        "rtt",
        "round trips, one at a time",
        ("rtt_p50_us", "rtt_p99_us", "cpu_s_per_10k"),
        *(20, 0.4, "rtt", {}, (REFERENCE, ORIGINAL, OURS)),
    ),
    Mode(
        "durable",
        "confirmed 200-byte rows of trial data",
        ("rate_per_s", "handled_per_s", "cpu_s_per_10k"),
        # More may be unconfirmed than elsewhere, for a disk that syncs takes its time.
        *(5, 1.5, "acked", {"window": 2048}, (JETSTREAM, OURS)),
    ),
    Mode(
        "loaded",
        f"round trips, idle and while {STREAM_MB_PER_S:g} MB/s of frames stream",
        ("loaded_p99_us", "idle_p99_us", "p99_x_idle", "loaded_p50_us", "stream_mb_per_s"),
        *(3, 4.0, "loaded"),
        {"size": FRAME_BYTES, "window": 64, "hz": STREAM_MB_PER_S * 1e6 / FRAME_BYTES},
    ),
    Mode(
        "fanin",
        "50 senders, 200 messages a second each",
        ("cpu_s_per_10k", "delivered_pct", "p50_ms", "p99_ms"),
        *(3, 2.0, "paced", {"senders": 50, "hz": 200}),
    ),
    Mode(
        "scale",
        "1,000 nodes, 10 messages a second each",
        ("cpu_s_per_10k", "delivered_pct", "p50_ms", "p99_ms", "station_mb"),
        *(3, 3.0, "paced", {"senders": 1000, "hz": 10}),
        warm_up_s=1.0,
    ),
    Mode(
        "scale_10",
        "10 nodes, 10 messages a second each",
        ("cpu_s_per_10k", "delivered_pct", "p50_ms", "p99_ms", "station_mb"),
        *(3, 6.0, "paced", {"senders": 10, "hz": 10}),
        warm_up_s=1.0,
    ),
    Mode(
        "scale_fast",
        "10 nodes, 1,000 messages a second each: the load of `scale`",
        ("cpu_s_per_10k", "delivered_pct", "p50_ms", "p99_ms", "station_mb"),
        *(3, 3.0, "paced", {"senders": 10, "hz": 1000}),
        warm_up_s=1.0,
    ),
    Mode(
        "chunks",
        "chunks of 8 kB",
        ("rate_per_s", "mb_per_s", "cpu_s_per_10k"),
        *(5, 1.0, "bulk", _bulk(CHUNK_BYTES, 512)),
    ),
    Mode(
        "frames",
        "frames of 307 kB, routed (ours and zenoh share memory, others use TCP)",
        ("rate_per_s", "mb_per_s", "cpu_s_per_10k"),
        *(5, 1.0, "bulk", _bulk(FRAME_BYTES, 64)),
    ),
    Mode(
        "frames_direct",
        "frames of 307 kB, straight to a receiver on the same machine",
        ("rate_per_s", "mb_per_s", "cpu_s_per_10k"),
        *(5, 1.0, "bulk", _bulk(FRAME_BYTES, 64, direct=True), (REFERENCE, "zenoh", "lsl")),
    ),
    Mode(
        "idle_pilot",
        "an idle pilot: station, node and stream, default heartbeat",
        ("sender_cpu_pct", "station_cpu_pct"),
        *(2, 10.0, "idle", {"peers": 0}),
        references=(),
    ),
    Mode(
        "idle_station",
        "a station with 1,000 idle peers",
        ("station_cpu_pct", "station_mb", "sender_cpu_pct"),
        *(2, 10.0, "idle", {"peers": 1000}),
        references=(REFERENCE,),
    ),
    Mode(
        "import",
        "import of every public name, without starting Python",
        (
            "import_cpu_s",
            "dependencies_cpu_s",
            "first_node_cpu_s",
            "import_s",
            "plain_import_s",
            "bare_python_s",
        ),
        *(3, 1.0, "import"),
        references=(),
        warm_up_s=0.0,
    ),
    Mode(
        "store",
        "frames of 307 kB committed, without a network, beside the disk's own limit",
        ("stored_mb_per_s", "disk_mb_per_s", "of_wanted"),
        *(3, 2.0, "store", {"size": FRAME_BYTES}, ()),
    ),
    Mode(
        "recorded",
        "frames of 307 kB streamed to a Terminal and committed there, beside the disk's own limit",
        ("stored_mb_per_s", "disk_mb_per_s", "of_wanted"),
        *(3, 2.0, "recorded", _bulk(FRAME_BYTES, 64), ()),
    ),
)
MODES = {mode.name: mode for mode in _ALL}
