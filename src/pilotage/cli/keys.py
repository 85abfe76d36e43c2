"""`pilotage keys …` and `pilotage join`: who may come in, and as whom."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pilotage.cli.options import AsJson
from pilotage.cli.show import Column, print_json, print_table
from pilotage.protocol.errors import MisuseError

if TYPE_CHECKING:
    from pilotage.net.keys import KeyFolder
    from pilotage.services.security.pairing import Candidate

Name = Annotated[str | None, typer.Option("--name", help="Whose key, where this machine has several.")]

app = typer.Typer(
    help="Make, list, accept, revoke and replace keys.", no_args_is_help=True, rich_markup_mode=None
)


def _folder() -> KeyFolder:
    from pilotage.net.keys import KeyFolder
    from pilotage.net.prefs import prefs

    return KeyFolder(prefs.get("KEYDIR"))


@app.command()
def init(
    name: Annotated[str, typer.Option("--name", help="Whom it speaks for: T for the Terminal.")] = "T",
) -> None:
    """Make this machine's key. From the next start on the Terminal is open to other machines, encrypted."""
    from pilotage.app.keys import make_key

    pair, public = make_key(_folder(), name)
    typer.echo(f"{name} has a key: {pair.public}")
    typer.echo(f"to be copied by hand, or given away by `pilotage keys accept`: {public}")
    typer.echo(f"if {name} runs already, start it anew")


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List our own keys, and those of whom we know."""
    folder = _folder()
    ours = [{"name": pair.name, "role": "own", "via": "", "public": pair.public} for pair in folder.own()]
    known = [
        {"name": one.name, "role": one.role, "via": one.via, "public": key}
        for one in folder.known()
        for key in one.keys
    ]
    if as_json:
        print_json(ours + known)
        return
    if not ours + known:
        typer.echo(f"no keys in {folder.folder}: `pilotage keys init` makes one")
        return
    columns = [Column(title) for title in ("name", "role", "via", "public key")]
    print_table(columns, [[row["name"], row["role"], row["via"], row["public"]] for row in ours + known])


@app.command()
def accept(
    role: Annotated[
        str, typer.Option(help="What it is here: pilot, node, viewer, operator, admin.")
    ] = "pilot",
    via: Annotated[str, typer.Option(help="The pilot through which a child's messages come.")] = "",
    name: Name = None,
    port: Annotated[int | None, typer.Option(help="Where to wait, if not at PAIRPORT.")] = None,
    seconds: Annotated[float, typer.Option("--for", min=1.0, metavar="SECONDS", help="How long.")] = 300.0,
) -> None:
    """Wait for `pilotage join` on another machine, compare the codes, and keep its key."""
    from pilotage.app.keys import accept as accept_newcomer
    from pilotage.app.keys import choose_own
    from pilotage.net.prefs import prefs

    folder = _folder()
    own = choose_own(folder, name)
    at = prefs.get("PAIRPORT") if port is None else port

    def waiting(number: int) -> None:
        typer.echo(f"{own.name} waits on port {number}: run `pilotage join` on the other machine")

    known = accept_newcomer(folder, own, at, role, via, seconds, waiting, _ask)
    typer.echo(f"{known.name} may come in, as {known.role}")


@app.command()
def revoke(name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key.")]) -> None:
    """Let somebody's key in no longer; a Terminal that runs refuses it at once."""
    from pilotage.app.keys import revoke as revoke_key

    typer.echo(f"the key of {revoke_key(_folder(), name).name} opens nothing any more")


@app.command()
def rotate(name: Name = None) -> None:
    """Replace this machine's key: a pilot's while it runs, the Terminal's between sessions."""
    from pilotage.app.keys import choose_own
    from pilotage.app.keys import rotate as rotate_key
    from pilotage.net.pref_keys import TERMINAL_ID
    from pilotage.net.prefs import prefs

    folder, settings = _folder(), prefs.snapshot()
    own = choose_own(folder, name, settings.name or TERMINAL_ID)
    told = rotate_key(folder, own, settings)
    for pilot, trouble in told.items():
        typer.echo(f"{pilot}  {(trouble and f'was not told: {trouble}') or 'knows the new key'}")
    typer.echo(f"{own.name} has a new key")
    if own.name == TERMINAL_ID or told:
        who = "the Terminal" if own.name == TERMINAL_ID else own.name
        typer.echo(f"start {who} anew, between sessions; whoever was not told now has to be paired again")


def join(
    host: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="Where `pilotage keys accept` waits.")],
    name: Annotated[str | None, typer.Option(help="Our name, if not NAME of the preferences.")] = None,
) -> None:
    """Pair this machine with a Terminal, or a child with its parent."""
    from pilotage.app.keys import pair_with
    from pilotage.net.prefs import prefs

    me = name or prefs.get("NAME")
    if not me:
        raise MisuseError("say who this is: --name NAME, or NAME in the preferences")
    place, port = _split(host, prefs.get("PAIRPORT"))
    known = pair_with(_folder(), me, place, port, _ask)
    key = "TERMINALIP" if known.name == "T" else "PARENTIP"
    typer.echo(f"{me} is paired with {known.name}; put {key} = {place!r} into its preferences")


def _split(host: str, port: int) -> tuple[str, int]:
    place, colon, number = host.rpartition(":")
    if not colon or host.endswith("]") or ":" in place.strip("[]"):
        return host.strip("[]"), port
    if not number.isdecimal() or not 0 < int(number) < 65536:
        raise MisuseError(f"{host!r} is no HOST[:PORT]")
    return place, int(number)


def _ask(candidate: Candidate) -> bool:
    typer.echo(f"{candidate.party.name} at {candidate.address}")
    typer.echo(f"code: {candidate.code}")
    typer.echo("does the other screen show the same code? [y/N] ", nl=False)
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
