"""The LMDB environments themselves."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from couchlite.engine import Space
from couchlite.storage import LmdbEnvironment


def test_environments_open_while_deleted_ones_close(tmp_path: Path) -> None:
    """A new file often gets the inode that a deleted one has just given back."""

    def open_delete_close(number: int) -> None:
        path = tmp_path / str(number)
        environment = LmdbEnvironment(path, Space, create=True)
        shutil.rmtree(path)
        environment.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(open_delete_close, range(400)))
