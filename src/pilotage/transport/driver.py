"""The driver: carries stimuli to an exchange, and its instructions out.

Who is in the loop's seat touches sockets, which is the loop's thread. Others leave their wishes in its mailbox; only
what is alone, a message or the end of a listen, is sent by its own thread, in the loop's place.
Law of this room: a turn reads what is there, within a bound, and comes back for the rest.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVarTuple

from pilotage.protocol.doors import Door
from pilotage.protocol.exchange import Exchange
from pilotage.protocol.inbox import Handled
from pilotage.protocol.instructions import (
    Accepted,
    Arrival,
    Drop,
    Follow,
    HandOver,
    Hangup,
    Instruction,
    Keep,
    Link,
    Note,
    PeerChanged,
    Progress,
    Settle,
    Transmit,
)
from pilotage.protocol.news import UNTOLD_MOST, UNWATCHED_WITHIN_S
from pilotage.protocol.records import MAX_RUN
from pilotage.protocol.sends import FOREVER, Kept, Pending, Place
from pilotage.protocol.settlement import Settlement
from pilotage.transport.dialling import Dialling
from pilotage.transport.haste import AGAIN_AFTER_S, interval
from pilotage.transport.lines import Lines, Places
from pilotage.transport.lookout import stand_in, waker
from pilotage.transport.mailbox import Mailbox, Row
from pilotage.transport.ports import DialledWire, ListeningWire, Shell, Wires
from pilotage.transport.workers import HELP_AFTER_S

if TYPE_CHECKING:
    from tornado.ioloop import IOLoop

log = logging.getLogger(__name__)

ARRIVALS_A_TURN = 256
FEW_ARRIVALS = 16
TURN_S = 0.001
"""How long a turn may take before the next one takes in half as much, down to `FEW_ARRIVALS`; a quick one takes in
twice as much again. So whoever's messages cost us most doesn't make all others wait for a long turn."""
UNREAD_A_TURN = 16
UNREAD_PAUSE_S = 0.001
"""Where most of what comes is thrown away unread, only so much is taken so often: the queue for who sends it fills,
and he is made to wait. Whoever else sends something is served at once, in his turn."""

BUSY_RETRY_S = 0.002
GIVE_WAY_S = 0.0 if sys.platform == "win32" else 1e-5
"""For how long whoever sends without a pause lets the loop run: merely letting go of the interpreter isn't enough, for
he would have it again before the loop, woken on another core, could take it. Windows sleeps much longer than it is
asked to."""


_Given = TypeVarTuple("_Given")
Wishes = tuple[Sequence[Handled], Sequence[Pending]]
"""What other threads have left: how listens ended, and what is to be sent."""


class Driver:
    """One exchange on a loop.

    Args:
        exchange: what decides.
        shell: what is told.
        wires: the network.
        places: where to listen and dial.
        loop: tornado's, on whose thread everything happens.

    Attributes:
        is_awake: the loop has a turn before it, which empties the mailbox.
    """

    def __init__(self, exchange: Exchange, shell: Shell, wires: Wires, places: Places, loop: IOLoop) -> None:
        self.exchange = exchange
        self.counts: Counter[str] = Counter()
        self._shell = shell
        self._wires = wires
        self._places = places
        self._loop: asyncio.AbstractEventLoop = loop.asyncio_loop  # type: ignore[attr-defined]
        self._wake_for = waker(self._loop)
        self._stand_in = stand_in(self._loop)
        self.mailbox = Mailbox()
        self._results: deque[Handled] = deque()
        self._persisted: deque[list[Place]] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._ended: list[tuple[Any, Settlement]] = []
        self._put_off: list[Instruction] = []
        self._lines = Lines(self.counts, self._lost)
        self._dialling = Dialling(exchange, wires, places, self._lines, self, shell.note)
        self.is_awake = False
        self._is_gathering = self._has_gathered = False
        self._most = FEW_ARRIVALS
        self._is_flooded = False
        self._thread = 0
        self._own_threads: tuple[int | None, ...] = ()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = FOREVER
        self._wake_at = 0.0
        self._closed = False
        self._helping: asyncio.TimerHandle | None = None

    @property
    def listener(self) -> ListeningWire | None:
        """The socket that others dial; None where we don't listen."""
        return self._lines.listener

    @property
    def dialer(self) -> DialledWire | None:
        """The socket by which we dialled up the tree; None while there is none."""
        return self._lines.dialer

    @property
    def locked_out(self) -> str:
        """Why the station up the tree and we have no lock in common; "" if we have, or don't know yet."""
        return self._dialling.locked_out

    # From any thread

    def send(self, request: Pending, row: Row | None = None, *, at_once: bool = False) -> None:
        """Leave a send in the mailbox; see `Mailbox.leave`.

        Args:
            request: what to send.
            row: by which others may join it.
            at_once: nothing is before it: if the loop rests, it is sent by this thread, where that may. To wake the
                loop's would not be enough, for that needs the interpreter, which whoever computes lets go of every
                5 ms only; sooner where he is asked to.
        """
        count = self.mailbox.leave(request, row)
        if not at_once:
            self.wake(count)
        elif not (self._may_stand_in() and self._stands_in(lambda: ((), self.mailbox.take_only(request)))):
            self._hasten()
            self._wake()

    def _hasten(self) -> None:
        """Have the loop's thread get the interpreter soon, where another one runs that may compute on."""
        now, due = time.monotonic(), interval.next_at
        interval.next_at = now + AGAIN_AFTER_S  # who sends again and again is in no haste at all
        if now > due and threading.get_ident() != self._thread and self._loop.is_running():
            interval.hasten()

    def _stands_in(self, take: Callable[[], Wishes]) -> bool:
        """Have the calling thread, which may, see to something in the loop's place, if the loop rests."""
        return not self.is_awake and self._stand_in(partial(self._see_to, take))

    def _may_stand_in(self) -> bool:
        """Tell whether the calling thread may send by itself; not the main one, where an interrupt may come between."""
        if threading.get_ident() in self._own_threads:
            return False
        listener, dialer = self._lines.listener, self._lines.dialer
        return listener is None and dialer is not None and dialer.is_plain

    def _see_to(self, take: Callable[[], Wishes]) -> None:
        """Send what comes of something, in the loop's place; all else may be somebody else's code, and is put off."""
        try:
            # Since we looked, another send may have come, or another link.
            if not self._closed and self._may_stand_in():
                for instruction in self.exchange.turn((), *take(), time.monotonic()):
                    if isinstance(instruction, Transmit):
                        self._lines.transmit(instruction.batch)
                    else:
                        self._put_off.append(instruction)
        except Exception as error:  # noqa: BLE001 - the loop logs it
            self.counts["turns failed"] += 1
            text = f"{self.exchange.config.me}: a turn in the loop's place failed"
            self._calls.append(partial(log.error, text, exc_info=error))
        is_left = self.mailbox.sends or self._results or self._put_off or self._calls or self._lines.waiting
        if is_left or self.exchange.wake_at() < self._alarm_at:
            self._wake()

    def wake(self, count: int = 0) -> None:
        """Have the mailbox emptied. Whoever sends without a pause gives way to the loop now and then.

        He would keep the interpreter to himself, 5 ms at a time.

        Args:
            count: messages that lie in it.
        """
        self._wake()
        if count and count % MAX_RUN == 0 and threading.get_ident() != self._thread:
            time.sleep(GIVE_WAY_S)

    def persisted(self, places: list[Place]) -> None:
        """Leave in the mailbox what the journal has safe."""
        self._persisted.append(places)
        self._wake()

    def handled_all(self, results: list[Handled], *, at_once: bool = False, may_wait: bool = False) -> None:
        """Leave the ends of many listens in the mailbox.

        Args:
            results: how they ended.
            at_once: whoever has called them has no more to call: if the loop rests, he tells of them by himself.
            may_wait: nobody waits for them: the loop needn't be woken if it has a turn soon.
        """
        if not results:
            return
        self._results.extend(results)
        if (
            may_wait
            and len(self._results) < UNTOLD_MOST
            and self._wake_at <= time.monotonic() + UNWATCHED_WITHIN_S
        ):
            return  # where that turn has begun, it looks for them in its end
        if not (at_once and self._may_stand_in() and self._stands_in(lambda: (self._take_results(), ()))):
            self._wake()

    def _take_results(self) -> Sequence[Handled]:
        return [self._results.popleft() for _ in range(len(self._results))] if self._results else ()

    def call(self, work: Callable[[], None]) -> None:
        """Have something done on the loop's thread."""
        self._calls.append(work)
        self._wake()

    def _wake(self) -> None:
        if self.is_awake:
            return
        try:
            self.is_awake = True
            if threading.get_ident() == self._thread:
                self._loop.call_soon(self._woken)
            else:
                self._wake_for(self._woken)
        except RuntimeError:
            self.is_awake = False  # the loop is closed: whoever closed it has settled what was open
            interval.calm_down()
        except BaseException:
            self.is_awake = False  # an interrupt: nobody may have been woken
            raise

    # On the loop's thread

    def start(self) -> None:
        """Listen and dial.

        Raises:
            PortInUse: another program listens on our port.
        """
        self._thread = threading.get_ident()
        self._own_threads = (self._thread, threading.main_thread().ident)
        places, config = self._places, self.exchange.config
        if places.listen_address is not None or places.has_door:
            listener = self._wires.listen(
                places.listen_address, places.listen_port, config.me, config.boot, has_door=places.has_door
            )
            self._lines.have(listener, None)
            listener.watch(self._loop, self._come, self.turn, self._come_alone)
            if places.has_door:
                self.exchange.doors.own = Door(self._wires.machine, config.boot, *listener.door).told()
        if places.follows_doors:
            self.exchange.doors.machine = self._wires.machine
        if places.dial_host is not None:
            self._dialling.start(self._loop)
        self.turn()

    def stop(self) -> None:
        """Say goodbye, settle what is open, and close."""
        if self._closed:
            return
        self.turn()
        self._closed = True
        self.mailbox.close()
        self.carry_out(self.exchange.release(time.monotonic()))
        self._turn_over()
        self._dialling.stop()
        for timer in (self._alarm, self._helping):
            if timer is not None:
                timer.cancel()
        self._lines.close()

    def restore(self, kept: list[Kept], handle_for: Callable[[Kept], Any]) -> None:
        """Go on with what earlier lives have kept, before `start`."""
        self.carry_out(self.exchange.restore(kept, handle_for, time.monotonic()))
        self._turn_over()

    def ask_for_ends(self) -> None:
        """Ask for the ends of what we have sent, which may be told late."""
        now = time.monotonic()
        if self.mailbox.sends:
            self.carry_out(self.exchange.turn((), (), self._take_requests(), now))
        self.carry_out(self.exchange.ask_for_ends(now))

    def tick(self) -> None:
        """Let the exchange look at what is due, now."""
        self.carry_out(self.exchange.time_passed(time.monotonic()))
        self._turn_over()

    def _come(self) -> None:
        """Something has come: the first is served at once, all that come in the same moment together after it."""
        if self._is_gathering:
            self._has_gathered = True
            return
        self._gather()
        self.turn()

    def _come_alone(self, alone: Arrival) -> bool:
        """A message has come by itself; see `_come` and `turn_for`."""
        if self._is_gathering or not self.turn_for(alone):
            return False
        self._gather()
        return True

    def _gather(self) -> None:
        """Have what else comes in this moment wait until all of it is there."""
        listener = self._lines.listener
        if listener is not None and listener.more_comes():
            self._is_gathering = True
            self._loop.call_soon(self._gathered)

    def _gathered(self) -> None:
        self._is_gathering = False
        if self._has_gathered:
            self._has_gathered = False
            self.turn()

    def turn(self) -> None:
        """Do what there is to do, and come back: whatever goes wrong in one turn, the next one comes (B1)."""
        self.is_awake = False
        if self._closed:
            interval.calm_down()
            return
        now = time.monotonic()
        if self._put_off:  # it is older than all that this turn brings
            put_off, self._put_off = self._put_off, []
            self._try(self.carry_out, put_off)
        self._try(self._work, now)
        if not self._closed:
            self._rest(now)
        self._turn_over()

    def turn_for(self, alone: Arrival) -> bool:
        """Do what a message brings about that has come by itself, and look for nothing else (decision 0024).

        Returns:
            Whether it was taken: not where there is more to do, or something may have come that nobody tells of.
        """
        if not self._lines.is_plain or self._put_off or interval.is_short or self._closed:
            return False
        now = time.monotonic()
        try:
            self.carry_out(self.exchange.turn((alone,), (), (), now))
        except Exception as error:  # noqa: BLE001 - as in any turn
            self._failed(error)
        self._come_back(now)
        return True

    def _woken(self) -> None:
        """Somebody has left something: to send or to tell it needs no look at anything else (decision 0024)."""
        lines = self._lines
        self.is_awake = False  # before we look: who leaves something from now on wakes us again
        is_more = self._calls or self._persisted or self._put_off or self._closed
        if is_more or lines.waiting or not lines.is_plain:
            self.turn()
            return
        now = time.monotonic()
        try:
            self._exchange_words((), now)
        except Exception as error:  # noqa: BLE001 - as in any turn
            self._failed(error)
        self._come_back(now)

    def _come_back(self, now: float) -> None:
        """End a turn that has looked for nothing: come back when time is due, if nothing else does sooner."""
        due = now + BUSY_RETRY_S if self._lines.waiting else self.exchange.wake_at()
        if due < self._alarm_at and not self._closed:
            self._wake_at = min(self._wake_at, due)
            self._wind(due, now)
        self._turn_over()

    def _try(self, work: Callable[[*_Given], None], *given: *_Given) -> None:
        """Do something that may fail, and tell of it."""
        try:
            work(*given)
        except Exception as error:  # noqa: BLE001 - it is told
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """Tell of an error that ended what a turn was to do."""
        self.counts["turns failed"] += 1
        log.error("%s: a turn of the loop failed", self.exchange.config.me, exc_info=error)

    def _turn_over(self) -> None:
        """Wake other threads as the very last act: they need the interpreter, which we let go of now."""
        if interval.is_short and not self.mailbox.sends:
            interval.calm_down()  # not sooner: whoever computes may have taken the interpreter from us meanwhile
        if self._ended:
            ended, self._ended = self._ended, []
            self._shell.settle(ended)
        if self._shell.turn_over() and self._helping is None and not self._closed:
            self._helping = self._loop.call_later(HELP_AFTER_S, self._help)

    def _help(self) -> None:
        """Look after other threads once more, between two turns."""
        self._helping = None
        self._turn_over()

    def _exchange_words(self, arrivals: Sequence[Arrival], now: float) -> None:
        """Give the exchange what has come, and what other threads have left, and do as it says."""
        results = self._take_results() if self._results else ()
        requests = self._take_requests() if self.mailbox.sends else ()
        if arrivals or results or requests:
            self.carry_out(self.exchange.turn(arrivals, results, requests, now))

    def _work(self, now: float) -> None:
        """Do all that there may be to do: read what has come, serve who has called, and let time pass."""
        is_time = now >= self._wake_at
        lines, exchange = self._lines, self.exchange
        arrivals, unread = lines.drain(self._most), exchange.strangers.unread
        self._exchange_words(arrivals, now)
        self._is_flooded = (exchange.strangers.unread - unread) * 2 > len(arrivals)
        if self._persisted:
            for places in _take_all(self._persisted):
                self.carry_out(self.exchange.persisted(places, now))
        for link in lines.listener.gone() if lines.listener is not None else ():
            lines.forget(link)
            self.carry_out(exchange.link_down(link, now))
        while self._calls:
            self._calls.popleft()()
        if lines.waiting:
            lines.send_waiting()
        if is_time:
            self.carry_out(exchange.time_passed(now))
            interval.calm_down()

    def _take_requests(self) -> Sequence[Pending]:
        requests = self.mailbox.take()
        self._shell.taken(requests)
        return requests

    def _rest(self, now: float) -> None:
        """Come back at once if there is more, else when time is due."""
        self._wake_at = self.exchange.wake_at()
        if self._results:
            self._wake_at = min(self._wake_at, now + UNWATCHED_WITHIN_S)
        due = self._look(now, now + BUSY_RETRY_S if self._lines.waiting else self._wake_at)
        if due < self._alarm_at or self._alarm_at <= now:
            self._wind(due, now)

    def _wind(self, due: float, now: float) -> None:
        """Come back at a time, or at once if it is over."""
        if due <= now and not self.is_awake:
            self.is_awake = True
            self._loop.call_soon(self.turn)
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = due
        if due != FOREVER:
            self._alarm = self._loop.call_later(due - now, self._ring)

    def _look(self, now: float, due: float) -> float:
        """See whether something is left to be read, and tell when to come back for it."""
        if not self._lines.readable():
            self._most = FEW_ARRIVALS
            return due
        if self._is_flooded:
            self._most = UNREAD_A_TURN
            return min(due, time.monotonic() + UNREAD_PAUSE_S)
        self._most = self._most_after(time.monotonic() - now)
        return now

    def _most_after(self, took_s: float) -> int:
        """Tell how many transmissions the next turn takes in at most, by how long this one took."""
        wanted = self._most // 2 if took_s > TURN_S else self._most * 2
        return min(ARRIVALS_A_TURN, max(FEW_ARRIVALS, wanted))

    def _ring(self) -> None:
        self._alarm_at = FOREVER
        self.turn()

    def carry_out(self, instructions: Sequence[Instruction]) -> None:
        """Carry instructions out. The only place that tells them apart."""
        for instruction in instructions:
            match instruction:
                case Transmit():
                    self._lines.transmit(instruction.batch)
                case HandOver():
                    self._hand_over(instruction)
                case Settle():
                    self._ended += instruction.ended
                case Progress(received):
                    self._shell.progress(received)
                case Keep() | Drop() | Accepted():
                    self._tell_journal(instruction)
                case PeerChanged():
                    self._shell.peer_changed(instruction)
                case Hangup() | Follow():
                    self._redirect(instruction)
                case Note():
                    self._shell.note(instruction)

    def _tell_journal(self, instruction: Keep | Drop | Accepted) -> None:
        match instruction:
            case Keep(sends):
                self._shell.keep(sends)
            case Drop(places, parts):
                self._shell.drop(places, parts)
            case Accepted(handles):
                self._shell.accepted(handles)

    def _hand_over(self, messages: HandOver) -> None:
        results, passed = self._shell.hand_over(messages)
        now = time.monotonic()
        if results:
            # What the listens sent goes out together with what is said of their messages.
            sent = self._take_requests() if self.mailbox.sends else ()
            self.carry_out(self.exchange.turn((), results, sent, now))
        if passed:
            self.carry_out(self.exchange.pass_on(passed, now))

    def _lost(self, link: Link, text: str) -> None:
        """A link of others' can't be written to."""
        now = time.monotonic()
        self._call_later(lambda: self.carry_out(self.exchange.link_down(link, now, text)))

    def _call_later(self, work: Callable[[], None]) -> None:
        """Do something in the next turn: the exchange is busy with this one."""
        self._calls.append(work)
        if not self.is_awake:
            self.is_awake = True
            self._loop.call_soon(self.turn)

    def judge_anew(self, *, redials: bool) -> None:
        """Keys have changed: who has none any more is turned away; dial anew if ours has changed."""
        self.carry_out(self.exchange.authority_changed(time.monotonic()))
        dialer = self._lines.dialer
        if redials and dialer is not None:
            self.carry_out(self.exchange.link_down(dialer.link, time.monotonic(), "our key has changed"))
            self._dialling.hang_up()

    def _redirect(self, instruction: Hangup | Follow) -> None:
        """End a link that we dialled; on a listening socket forgetting the peer is all that there is to do."""
        dialer = self._lines.dialer
        if isinstance(instruction, Follow):
            self._dialling.follow(instruction.door)
        elif dialer is not None and instruction.link == dialer.link:
            self._dialling.hang_up()


def _take_all(box: deque[Any]) -> list[Any]:
    """Empty a mailbox that other threads may be filling."""
    return [box.popleft() for _ in range(len(box))]
