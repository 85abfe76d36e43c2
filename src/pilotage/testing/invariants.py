"""What must hold when the faults have stopped and all is quiet: the promises, as sentences that can fail.

Law of this room: a check reads the recorder's facts and the tables' lengths, never what a rule meant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pilotage.protocol.settlement import Outcome, Reason
from pilotage.testing.process import Process, answer_to
from pilotage.testing.recorder import Sent
from pilotage.testing.world import World

CERTAINLY_NOT_HANDLED = (Reason.UNKNOWN_RECIPIENT, Reason.QUEUE_FULL)


def violations(world: World) -> list[str]:
    """Give a sentence for each promise that was broken."""
    checks = (
        settled_once, truthful, once, in_order, durable_delivered, kept, stored_once, stored_in_order,
        originals_served, bounded, connected,
    )  # fmt: skip
    return [*world.recorder.violations, *(text for check in checks for text in check(world))]


def settled_once(world: World) -> Iterator[str]:
    """D1: every send has one settlement; none, only where its sender ended."""
    boots = {process.boot for process in world.lives if process.alive}
    for sent in world.recorder.sends:
        if len(sent.ends) > 1:
            yield f"D1: {sent} was settled {len(sent.ends)} times: {sent.ends}"
        elif not sent.ends and sent.boot in boots and not (sent.durable and sent.path[-1] in world.gone):
            yield f"D1: {sent} was never settled"


def truthful(world: World) -> Iterator[str]:
    """A settlement says what happened."""
    handlings = world.recorder.handlings
    for sent in world.recorder.sends:
        for end in sent.ends:
            if end.outcome is Outcome.DELIVERED and not handlings[sent.identity]:
                yield f"delivered, not handled: {sent}"
            if (
                end.outcome is Outcome.REFUSED
                and end.reason in CERTAINLY_NOT_HANDLED
                and handlings[sent.identity]
            ):
                yield f"handled, yet {end.reason} ({end.text}): {sent}"
            yield from _by_verb(world, sent)


def _by_verb(world: World, sent: Sent) -> Iterator[str]:
    end = sent.ends[0]
    if sent.path[-1] in world.originals:
        return
    if end.outcome is Outcome.DELIVERED and sent.verb == "FAIL":
        yield f"a listen failed, and its sender was told delivered: {sent}"
    if end.reason is Reason.LISTEN_FAILED and sent.verb != "FAIL":
        yield f"no listen failed, and its sender was told so: {sent}"
    if end.outcome is Outcome.DELIVERED and sent.verb == "ASK" and end.answer != answer_to(sent.identity):
        yield f"the wrong answer {end.answer!r}: {sent}"


def once(world: World) -> Iterator[str]:
    """D2: a listen runs at most once with a message, per life of its recipient."""
    lives = {process.boot: process for process in world.lives}
    for boot, identities in world.recorder.handled.items():
        if boot not in lives:
            continue
        for identity, count in Counter(identities).items():
            original = world.originals.get(identity[0])
            # What an original repeats after its station's restart can't be told from a new message.
            if count > 1 and not (original and original.role.upstream in world.restarted):
                yield f"D2: {lives[boot].name} handled {identity} {count} times in one life"


def in_order(world: World) -> Iterator[str]:
    """D4: what one life sends to a recipient with one key, confirmed, is handled in the order of sending."""
    sends = {sent.identity: sent for sent in world.recorder.sends}
    for boot, identities in world.recorder.handled.items():
        latest: dict[tuple[int, tuple[str, ...], str], int] = {}
        for identity in identities:
            sent = sends.get(identity)
            if sent is None or not sent.ordered or sent.path[-1] in world.originals:
                continue
            flow = (sent.boot, sent.path, sent.verb)
            if sent.number < latest.get(flow, -1):
                yield f"D4: life {boot % 1000:03d} handled {sent} after #{latest[flow]}"
            latest[flow] = max(latest.get(flow, -1), sent.number)


def durable_delivered(world: World) -> Iterator[str]:
    """D3: what is durable is delivered, where its recipient is there in the end."""
    for sent in world.recorder.sends:
        if not sent.durable or not sent.ends or sent.path[-1] in (*world.originals, *world.gone):
            continue
        if sent.ends[0].outcome is not Outcome.DELIVERED and sent.ends[0].reason is not Reason.NAME_TAKEN:
            yield f"D3: {sent} ended as {sent.ends[0]}"


def kept(world: World) -> Iterator[str]:
    """D6: what the journal had safe is delivered, whoever died meanwhile; what was delivered is stored."""
    stored = {identity for disk in world.disks.values() for identity in disk.rows}
    for sent in world.recorder.sends:
        if sent.verb != "DATA" or sent.path[-1] in (*world.originals, *world.gone):
            continue
        ends = [end.outcome for end in (*sent.ends, *sent.later_ends)]
        if sent.accepted and Outcome.DELIVERED not in ends and sent.identity[0] not in world.gone:
            yield f"D6: the journal had {sent}, and it ended as {ends}"
        if Outcome.DELIVERED in ends and sent.identity not in stored:
            yield f"D5: delivered, not stored: {sent}"


def stored_once(world: World) -> Iterator[str]:
    """D2: DATA are stored exactly once, whoever died meanwhile."""
    rows = Counter(identity for disk in world.disks.values() for identity in disk.rows)
    for identity, count in rows.items():
        if count > 1:
            yield f"D2: {identity} is stored {count} times"


def stored_in_order(world: World) -> Iterator[str]:
    """D4: what the journal had safe is stored in the order of sending, also over lives of its sender."""
    sends = {sent.identity: sent for sent in world.recorder.sends}
    for name, disk in world.disks.items():
        latest: dict[tuple[str, tuple[str, ...]], int] = {}
        for identity in disk.rows:
            sent = sends.get(identity)
            if sent is None or not sent.accepted:
                continue
            flow = (identity[0], sent.path)
            if sent.number < latest.get(flow, -1):
                yield f"D4: {name} stored {sent} after #{latest[flow]}"
            latest[flow] = max(latest.get(flow, -1), sent.number)


def originals_served(world: World) -> Iterator[str]:
    """C1: an original is confirmed what it asked for, and DATA only when it was handled."""
    for original in world.originals.values():
        for message_id in original.confirmed:
            if message_id not in original.wanted:
                yield f"C1: {original.name} was confirmed {message_id}, for which it had not asked"
                continue
            identity, key, to = original.wanted[message_id]
            # CONFIRM says *received*: the recipient may have ended since, or be an original itself.
            certain = key == "DATA" or not (world.restarted or to in world.originals)
            if certain and not world.recorder.handlings[identity]:
                yield f"C1: {original.name} was confirmed {message_id} {key} to {to}, which nobody handled"


def bounded(world: World) -> Iterator[str]:
    """B3: when all is quiet, nothing is left in any table but what is remembered on purpose."""
    for process in world.processes.values():
        if world.gone:
            return  # what is durable goes on being sent to them
        for table, length in _leftovers(process).items():
            if length:
                yield f"B3: {length} left in {process.name}'s {table}"


def _leftovers(process: Process) -> dict[str, int]:
    exchange = process.exchange
    return {
        "outbox": len(exchange.outbox),
        "waiting room": len(exchange.waiting),
        "awaited confirmations": len(exchange.edge),
        "candidates": len(exchange.admission),
    }


def connected(world: World) -> Iterator[str]:
    """L1: in the end each process is known to its station under its name, as the life that it is."""
    for process in world.processes.values():
        if not process.role.upstream or not process.alive:
            continue
        peer = world.processes[process.role.upstream].exchange.routing.names.get(process.name)
        if peer is None or peer.boot != process.boot:
            station, life = process.role.upstream, peer.boot if peer else None
            yield f"L1: {station} knows {process.name} as life {life}, not {process.boot}"
        if process.exchange.routing.parent() is None:
            yield f"L1: {process.name} is not connected to {process.role.upstream}"
