"""The databases of a server, by its address: couchlite's or CouchDB's."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

from couchlite.errors import Conflict, CouchliteError, NotFound
from couchlite.jsontext import dumps, loads

from .address import Address
from .main import Failure
from .stores import DatabaseFacts, HistoryEntry, entries

TIMEOUT_S = 60.0
POLL_S = 0.2


class RemoteStore:
    """:param url: of the server; may hold a user and a password.
    :param user: taken where the address holds none.
    """

    def __init__(
        self,
        url: str,
        user: str | None = None,
        password: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        address = Address.parse(url, user, password)
        self.url = address.base
        """Without user and password."""
        self._timeout_s = timeout_s
        self._headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if address.authorization is not None:
            self._headers["Authorization"] = address.authorization

    def names(self) -> list[str]:
        names: list[str] = self.ask("GET", "/_all_dbs")
        return names

    def create(self, name: str) -> None:
        self.ask("PUT", path_to(name))

    def delete(self, name: str) -> None:
        self.ask("DELETE", path_to(name))

    def facts(self, name: str) -> DatabaseFacts:
        info = self.ask("GET", path_to(name))
        return DatabaseFacts(
            name=info["db_name"],
            documents=info["doc_count"],
            deleted_documents=info["doc_del_count"],
            update_seq=str(info["update_seq"]),
            file_bytes=info["sizes"]["file"],
            active_bytes=info["sizes"]["active"],
            external_bytes=info["sizes"]["external"],
            compacting=info["compact_running"],
        )

    def compact(self, name: str) -> None:
        self.ask("POST", path_to(name, "_compact"), {})
        while self.facts(name).compacting:
            time.sleep(POLL_S)

    def get(self, name: str, doc_id: str, rev: str | None) -> dict[str, Any]:
        query = "" if rev is None else f"?rev={quote(rev)}"
        document: dict[str, Any] = self.ask("GET", path_to_document(name, doc_id) + query)
        return document

    def put(self, name: str, document: dict[str, Any]) -> str:
        rev: str = self.ask("PUT", path_to_document(name, document["_id"]), document)["rev"]
        return rev

    def history(self, name: str, doc_id: str) -> list[HistoryEntry]:
        leaves = self.ask("GET", path_to_document(name, doc_id) + "?open_revs=all&revs=true")
        paths = [
            (bool(leaf["ok"].get("_deleted")), _revisions(leaf["ok"])) for leaf in leaves if "ok" in leaf
        ]
        if not paths:
            raise NotFound()
        # CouchDB's order of winners: not deleted, then the longest, then the highest.
        paths.sort(
            key=lambda path: (not path[0], int(path[1][0].partition("-")[0]), path[1][0]), reverse=True
        )
        inner = sorted({rev for _, revs in paths for rev in revs[1:]})
        asked = {"docs": [{"id": doc_id, "rev": rev} for rev in inner]}
        found = self.ask("POST", path_to(name, "_bulk_get"), asked)["results"] if inner else []
        documents = [leaf["ok"] for leaf in leaves if "ok" in leaf]
        documents += [answer["ok"] for result in found for answer in result["docs"] if "ok" in answer]
        deleted_revs = {document["_rev"]: bool(document.get("_deleted")) for document in documents}

        def status(rev: str) -> str:
            return "missing" if rev not in deleted_revs else "deleted" if deleted_revs[rev] else "available"

        return entries([(deleted, [(rev, status(rev)) for rev in revs]) for deleted, revs in paths])

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a response.

        :raises CouchliteError: the server refused; with its status, error and reason.
        """
        return loads(self.fetch(method, path, None if body is None else dumps(body)))

    def fetch(self, method: str, path: str, data: bytes | None = None) -> bytes:
        """The body of a response, as `ask`."""
        request = urllib.request.Request(self.url + path, data, self._headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
                content: bytes = response.read()
                return content
        except urllib.error.HTTPError as error:
            raise _refusal(error) from error
        except urllib.error.URLError as error:
            raise Failure(f"{self.url} does not answer: {error.reason}") from error
        except OSError as error:
            raise Failure(f"{self.url} does not answer: {error}") from error


_KINDS: dict[int, type[CouchliteError]] = {404: NotFound, 409: Conflict}


def _refusal(error: urllib.error.HTTPError) -> CouchliteError:
    kind = _KINDS.get(error.code, CouchliteError)
    try:
        body = loads(error.read())
        refusal = kind(str(body["reason"]), error=str(body["error"]))
    except (CouchliteError, KeyError, TypeError):
        refusal = kind(f"the server answers {error.code} {error.reason}")
    refusal.status = error.code
    return refusal


def _revisions(document: dict[str, Any]) -> list[str]:
    """A revision and its ancestors."""
    start, ids = document["_revisions"]["start"], document["_revisions"]["ids"]
    return [f"{start - at}-{digest}" for at, digest in enumerate(ids)]


def path_to(*segments: str) -> str:
    """The path of what these names lead to."""
    return "".join("/" + quote(segment, safe="") for segment in segments)


def path_to_document(name: str, doc_id: str) -> str:
    """The path of a document."""
    for prefix in ("_design/", "_local/"):
        if doc_id.startswith(prefix):
            return path_to(name, prefix[:-1], doc_id.removeprefix(prefix))
    return path_to(name, doc_id)
