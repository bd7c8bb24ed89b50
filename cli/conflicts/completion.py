"""What a shell may offer for the arguments of these commands: databases, documents in conflict, leaves.

Only what is found quickly: of a server that is no couchlite no documents, since finding them takes a while.
"""

from __future__ import annotations

from contextlib import suppress

import click

from couchlite.errors import CouchliteError

from .case import Case
from .opening import Places

TIMEOUT_S = 1.0
OFFERED_MAX = 50


def _places(context: click.Context) -> Places:
    given = context.params
    return Places(
        given["data_dir"], given.get("url"), given.get("user"), given.get("password"), timeout_s=TIMEOUT_S
    )


def databases(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of databases."""
    with suppress(CouchliteError, click.ClickException), _places(context) as places:
        return [name for name in places.names() if name.startswith(incomplete)]
    return []


def documents(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Ids of documents in conflict."""
    with suppress(CouchliteError, click.ClickException), _places(context) as places:
        return places.open(context.params["database"]).ids(incomplete, OFFERED_MAX)
    return []


def leaves(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Leaves of the document that stands before."""
    with suppress(CouchliteError, click.ClickException), _places(context) as places:
        case: Case = places.open(context.params["database"]).case(context.params["doc_id"])
        return [rev for rev in case.revs if rev.startswith(incomplete)][:OFFERED_MAX]
    return []
