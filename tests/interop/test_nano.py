"""nano, the CouchDB client for Node."""

import subprocess

from .device import HERE
from .site import PASSWORD, USER, Site


def test_a_day_s_work_with_nano(clients: None, site: Site) -> None:
    address = f"http://{USER}:{PASSWORD}@127.0.0.1:{site.port}"
    work = subprocess.run(
        ["node", HERE / "nano.mjs", address], capture_output=True, text=True, timeout=60, check=False
    )
    assert (work.returncode, work.stderr) == (0, "")
