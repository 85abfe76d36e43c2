"""`pilotage prefs`: what the preferences are, and who says so."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pilotage.cli.options import AsJson
from pilotage.cli.show import Column, print_json, print_table


def prefs(
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="One of them; all if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the preferences: values, and whether default, file or environment set them."""
    from pilotage.net.pref_keys import find_key
    from pilotage.net.prefs import prefs as all_prefs

    wanted = find_key(key.upper()).name if key else None
    found = [info for info in all_prefs.describe() if wanted in (None, info.key)]
    rows: list[dict[str, Any]] = [
        {
            "key": info.key,
            "value": info.value if isinstance(info.value, int | float | list | None) else str(info.value),
            "source": info.source,
            "type": info.type,
            "meaning": info.meaning,
        }
        for info in found
    ]
    if as_json:
        print_json(rows)
        return
    columns = [Column("key"), Column("value"), Column("source"), Column("meaning")]
    print_table(
        columns, [["" if row[c.title] is None else str(row[c.title]) for c in columns] for row in rows]
    )
