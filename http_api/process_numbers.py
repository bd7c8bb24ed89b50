"""What a process of the server counts outside of the shared statistics, brought into its row of them."""

from __future__ import annotations

import os
import sys

from couchlite.accounts import Accounts
from couchlite.javascript import FunctionPool
from couchlite.server import Server

from . import logs
from .metrics import Metrics


def tell(metrics: Metrics, server: Server, accounts: Accounts, functions: FunctionPool) -> None:
    files = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    counted = {
        **accounts.counts,
        **server.counts,
        "open_databases": server.open_count,
        "open_os_files": files,
        "query_server.process_starts": functions.processes_started,
    }
    logged = {f"couch_log.level.{level}": count for level, count in logs.counts.items()}
    metrics.set_values({f"couchdb.{name}": value for name, value in counted.items()} | logged)
