"""Logs: one line each on standard error, as text for people or as JSON for machines.

What must stay true here: a line holds no credentials and no body of a request or response, and nothing a
client sent can end a line or start a new one.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from couchlite.jsontext import dumps

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "notice": logging.INFO,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "err": logging.ERROR,
    "critical": logging.CRITICAL,
    "crit": logging.CRITICAL,
    "alert": logging.CRITICAL,
    "emergency": logging.CRITICAL,
    "emerg": logging.CRITICAL,
    "none": logging.CRITICAL + 1,
}
"""CouchDB's names of log levels."""
FORMATS = ("text", "json")
LINE_LENGTH_MAX = 16_000
"""CouchDB's max_message_size: a hostile address must not fill the disk."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}


counts = {"debug": 0, "info": 0, "warning": 0, "error": 0, "critical": 0}
"""How many lines this process has logged, by level."""


class _Counting(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        level = record.levelname.lower()
        if level in counts:
            counts[level] += 1
        return True


def configure(level: str, form: str) -> None:
    """Send the log of this process, and of those forked from it, to standard error.

    :param level: one of LEVELS.
    :param form: one of FORMATS.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.addFilter(_Counting())
    logging.getLogger().handlers[:] = [handler]
    logging.captureWarnings(True)
    set_level(level)


def set_level(level: str) -> None:
    """Log from this level on; one that doesn't exist counts as `info`."""
    number = LEVELS.get(level, logging.INFO)
    logging.getLogger().setLevel(number)
    logging.getLogger("asyncio").setLevel(max(number, logging.WARNING))


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z info http_api.workers: message key=value`"""

    def format(self, record: logging.LogRecord) -> str:
        pairs = "".join(f" {key}={value}" for key, value in extras(record).items())
        module = record.name if record.name != "root" else "log"
        line = f"{timestamp(record)} {record.levelname.lower()} {module}: {record.getMessage()}{pairs}"
        text = line.translate(CONTROLS)[:LINE_LENGTH_MAX]
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """An object a line: time, level, logger, pid, message, and whatever else belongs to it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage()[:LINE_LENGTH_MAX],
            **extras(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return dumps(line).decode("utf-8", "replace")


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """What was passed as `extra`."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def timestamp(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"
