"""`pilotage audit`: who did what and when, and whether the log still says what was written."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotage.cli.exits import Exit
from pilotage.cli.options import AsJson
from pilotage.cli.show import Column, print_json, print_table

if TYPE_CHECKING:
    from pilotage.services.audit import Link


KEY_CHARS = 8
"""What of a key is shown, as in refusals: enough to find it in `pilotage keys list`."""


def audit(
    session: Annotated[
        str, typer.Argument(metavar="[SESSION]", help="Only what concerns this session.")
    ] = "",
    last: Annotated[int, typer.Option(min=0, help="Show so many of the latest entries; 0 for all.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show who started, stopped, changed or fetched what, and verify it. On the Terminal's computer."""
    from pilotage.app.audit import read_audit
    from pilotage.net.prefs import prefs

    account = read_audit(prefs.get("DATADIR"), session)
    verdict, shown = account.verdict, account.entries[-last:] if last else account.entries
    if as_json:
        chain = {"entries": verdict.entries, "newest": verdict.newest, "whole": verdict.is_whole}
        chain |= {"broken_at": verdict.broken_at, "text": verdict.text, "anchors": account.anchors}
        print_json({"entries": [{"number": link.number, **link.fields} for link in shown], "chain": chain})
    else:
        _print(shown, len(account.entries))
        compared = f", compared with {account.anchors} ended sessions" if account.anchors else ""
        if verdict.is_whole:
            typer.echo(f"chain: {verdict.entries} entries, whole{compared}; newest {verdict.newest[:32]}")
        else:
            typer.echo(f"chain: BROKEN at entry {verdict.broken_at}: {verdict.text}")
    if not verdict.is_whole:
        raise typer.Exit(Exit.FAILED)


def _print(shown: list[Link], count: int) -> None:
    if not shown:
        typer.echo("nothing was noted yet")
        return
    if len(shown) < count:
        typer.echo(f"the latest {len(shown)} of {count} entries; --last 0 shows all")
    titles = ("no.", "when", "who", "did", "to", "session", "outcome")
    print_table([Column(title, right=title == "no.") for title in titles], [_row(link) for link in shown])


def _row(link: Link) -> list[Any]:
    from pilotage.net.notes import shown

    fields = link.fields
    at = fields.get("at")
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if isinstance(at, float) else "?"
    known = [str(fields.get(name) or "") for name in ("name", "address")]
    if key := str(fields.get("key") or ""):
        known.append(f"key {key[:KEY_CHARS]}…")
    via = fields.get("via")
    who = " ".join(filter(None, known)) + (
        f" via {' '.join(map(str, via))}" if isinstance(via, list) and via else ""
    )
    rest = [str(fields.get(name) or "") for name in ("verb", "target", "session", "outcome")]
    return [str(link.number), when, *(shown(text) for text in (who, *rest))]
