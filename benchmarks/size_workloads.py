"""What a server takes on disk and in memory after all the others."""

from __future__ import annotations

from .registry import BIG, BIG_DATABASE, big, workload
from .servers import Server


@workload("bytes/doc", 1, higher=False, set_up=big)
def disk_per_doc(server: Server) -> float:
    return float(server.call("GET", f"/{BIG_DATABASE}")["sizes"]["file"]) / BIG


@workload("MiB", 1.3, higher=False, set_up=big)
def memory_pss(server: Server) -> float:
    return server.pss_mib()
