"""An HTTP client that knows whether a request that failed may have been taken."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..shell.running import Answer

ANSWER_TIMEOUT_S = 30.0
_CREDENTIALS = "Basic " + base64.b64encode(b"adm:pass").decode()


class Unreachable(Exception):
    """Nothing was sent."""


class Lost(Exception):
    """The connection broke: whether the request was taken is unknown."""


class Client:
    """One connection to a server at `port`, made again when it broke. Not to be shared by threads."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_TIMEOUT_S)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        pieces: Iterable[bytes] | None = None,
    ) -> Answer:
        """Send a JSON body, or `pieces` as chunks.

        :raises Unreachable: :raises Lost: :raises TimeoutError: the server hangs.
        """
        complete = {"Authorization": _CREDENTIALS, "Content-Type": "application/json", **(headers or {})}
        data = pieces if body is None else json.dumps(body).encode()
        try:
            if self._connection.sock is None:
                self._connection.connect()
        except OSError as error:
            self.close()
            raise Unreachable from error
        try:
            self._connection.request(method, path, data, complete, encode_chunked=pieces is not None)
            response = self._connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        except TimeoutError:
            self.close()
            raise
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Lost from error

    def close(self) -> None:
        self._connection.close()
