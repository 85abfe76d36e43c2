"""What is sent in a row lies in the mailbox as one send, until the loop takes it."""

from __future__ import annotations

import threading

from pilotage.protocol.records import MAX_RUN, MAX_RUN_BYTES
from pilotage.protocol.sends import Pending
from pilotage.transport.mailbox import Mailbox

TERMS = ("rig", "K")


def send(name: str, body: bytes = b"body") -> Pending:
    return Pending(("rig",), "K", [body], 0, [name], [name])


def test_what_shares_the_terms_of_the_last_one_goes_with_it() -> None:
    mailbox = Mailbox()
    assert mailbox.join(TERMS, b"a", "a", "a") is None, "there is none"
    mailbox.leave(send("a"), TERMS)
    handle, at = mailbox.join(TERMS, b"b", "b", "b") or ((), 0)
    assert (handle, at) == (["a", "b"], 1)
    assert mailbox.join(("rig", "OTHER"), b"c", "c", "c") is None
    mailbox.leave(send("c"), ("rig", "OTHER"))
    assert mailbox.count == 3
    assert mailbox.join(TERMS, b"d", "d", "d") is None, "it would overtake c"
    assert [(one.names, one.bodies, one.handle) for one in mailbox.take()] == [
        (["a", "b"], [b"body", b"b"], ["a", "b"]), (["c"], [b"body"], ["c"]),
    ]  # fmt: skip


def test_nothing_is_added_to_what_was_taken_or_lies_alone() -> None:
    mailbox = Mailbox()
    mailbox.leave(send("a"), TERMS)
    (taken,) = mailbox.take()
    assert (
        mailbox.count == 0
        and mailbox.join(TERMS, b"b", "b", "b") is None
        and taken.names == ["a"]
        and not mailbox.count
    )
    mailbox.leave(send("framed"))
    assert mailbox.join(TERMS, b"b", "b", "b") is None
    mailbox.leave(send("c"), TERMS)
    mailbox.close()
    assert mailbox.join(TERMS, b"d", "d", "d") is None
    mailbox.leave(send("e"), TERMS)
    assert mailbox.join(TERMS, b"f", "f", "f") is None, "nobody will take it"


def test_a_send_grows_to_a_run_and_no_further() -> None:
    mailbox = Mailbox()
    mailbox.leave(send("0"), TERMS)
    joined = [mailbox.join(TERMS, b"", str(n), str(n)) for n in range(1, MAX_RUN + 1)]
    assert [one is None for one in joined] == [False] * (MAX_RUN - 1) + [True]
    mailbox.leave(send("long", bytes(MAX_RUN_BYTES - 10)), TERMS)
    assert mailbox.join(TERMS, bytes(10), "fits", "fits") is not None
    assert mailbox.join(TERMS, b"1", "too much", "too much") is None
    assert [len(one.bodies) for one in mailbox.take()] == [MAX_RUN, 2]


def test_threads_that_send_while_the_loop_takes_lose_nothing() -> None:
    mailbox, taken, left = Mailbox(), [], threading.Semaphore(0)
    each = 3000

    def hammer(who: str) -> None:
        for n in range(each):
            name = f"{who}{n}"
            if mailbox.join(TERMS, b"", name, name) is None:
                mailbox.leave(send(name), TERMS)
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
    first, second = send("a"), send("b")
    mailbox.leave(first, TERMS)
    assert mailbox.take_only(second) == [] and mailbox.count == 1
    assert mailbox.join(TERMS, b"c", "c", "c") is not None
    assert mailbox.take_only(first) == [first] and first.names == ["a", "c"] and mailbox.count == 0
    assert mailbox.join(TERMS, b"d", "d", "d") is None and mailbox.take_only(first) == [], "it was taken"
    mailbox.leave(first)
    mailbox.leave(second)
    assert mailbox.take_only(second) == mailbox.take_only(first) == [] and mailbox.take() == [first, second]
