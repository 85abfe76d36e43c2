"""What is sent in a row lies in the mailbox as one send, until the loop takes it."""

from __future__ import annotations

import threading

from pilotage.protocol.records import MAX_RUN, MAX_RUN_BYTES
from pilotage.protocol.sends import Pending
from pilotage.transport.mailbox import Mailbox, Row


def send(name: str, body: bytes = b"body") -> Pending:
    return Pending(("rig",), "K", [body], 0, [name], [name])


def leave(mailbox: Mailbox, name: str, body: bytes = b"body") -> Row:
    one = send(name, body)
    row = Row("terms", one, name, len(body))
    mailbox.leave(one, row)
    return row


def test_what_joins_the_row_that_was_left_last_goes_with_it() -> None:
    mailbox = Mailbox()
    assert mailbox.row is None
    first = leave(mailbox, "a")
    assert mailbox.row is first and mailbox.join(first, b"b", "b", "b") == 1
    assert first.send.handle == ["a", "b"]
    second = leave(mailbox, "c")
    assert mailbox.row is second and second.count_with_first == 3
    assert not mailbox.join(first, b"d", "d", "d"), "it would overtake c"
    assert [(one.names, one.bodies, one.handle) for one in mailbox.take()] == [
        (["a", "b"], [b"body", b"b"], ["a", "b"]), (["c"], [b"body"], ["c"]),
    ]  # fmt: skip


def test_nothing_is_added_to_what_was_taken_or_lies_alone() -> None:
    mailbox = Mailbox()
    row = leave(mailbox, "a")
    (taken,) = mailbox.take()
    assert mailbox.row is None and mailbox.sends == []
    assert not mailbox.join(row, b"b", "b", "b") and taken.names == ["a"] and mailbox.sends == []
    mailbox.leave(send("framed"))
    assert mailbox.row is None
    row = leave(mailbox, "c")
    mailbox.close()
    assert mailbox.row is None and not mailbox.join(row, b"d", "d", "d")
    row = leave(mailbox, "e")
    assert mailbox.row is None and not mailbox.join(row, b"f", "f", "f"), "nobody will take it"


def test_a_send_grows_to_a_run_and_no_further() -> None:
    mailbox = Mailbox()
    row = leave(mailbox, "0")
    assert [mailbox.join(row, b"", str(n), str(n)) for n in range(1, MAX_RUN + 1)] == [*range(1, MAX_RUN), 0]
    row = leave(mailbox, "long", bytes(MAX_RUN_BYTES - 10))
    assert mailbox.join(row, bytes(10), "fits", "fits") == 1
    assert not mailbox.join(row, b"1", "too much", "too much")
    assert [len(one.bodies) for one in mailbox.take()] == [MAX_RUN, 2]


def test_threads_that_send_while_the_loop_takes_lose_nothing() -> None:
    mailbox, taken, left = Mailbox(), [], threading.Semaphore(0)
    each = 3000

    def hammer(who: str) -> None:
        for n in range(each):
            name, row = f"{who}{n}", mailbox.row
            if row is None or not mailbox.join(row, b"", name, name):
                leave(mailbox, name, b"")
        left.release()

    threads = [threading.Thread(target=hammer, args=(who,)) for who in "abc"]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken += mailbox.take()
    taken += mailbox.take()
    names = [name for one in taken for name in one.names]
    assert all(one.names == one.handle and len(one.bodies) == len(one.names) for one in taken)
    for who in "abc":
        assert [name for name in names if name[0] == who] == [f"{who}{n}" for n in range(each)]


def test_a_send_is_taken_by_itself_only_where_nothing_else_lies() -> None:
    mailbox = Mailbox()
    row, second = leave(mailbox, "a"), send("b")
    first = row.send
    assert mailbox.take_only(second) == [] and mailbox.sends == [first]
    assert mailbox.join(row, b"c", "c", "c") == 1
    assert mailbox.take_only(first) == [first] and first.names == ["a", "c"] and mailbox.sends == []
    assert mailbox.row is None and not mailbox.join(row, b"d", "d", "d")
    assert mailbox.take_only(first) == [], "it was taken"
    mailbox.leave(first)
    mailbox.leave(second)
    assert mailbox.take_only(second) == mailbox.take_only(first) == [] and mailbox.take() == [first, second]
