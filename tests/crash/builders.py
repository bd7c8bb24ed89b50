"""A process that builds an index in many small steps, to be killed on its way.

python -m tests.crash.builders DIRECTORY        prints "begun", then "built"
"""

from __future__ import annotations

import sys

from couchlite import Server
from couchlite.index import DesignViews, IndexDefinition, IndexFunctions, build
from couchlite.javascript import FunctionThread

DATABASE = "a"
MAP = "function (doc) { for (let i = 0; i < 4000; i++); for (const key of doc.keys) emit(key, doc.n) }"


def definition() -> IndexDefinition:
    views = {"v": {"map": MAP, "reduce": "_sum"}}
    return DesignViews(DATABASE, {"_id": "_design/d", "views": views}).find("v")


def main() -> None:
    build.WRITE_DOCUMENTS = 100
    build.PAGE_DOCUMENTS = 50
    build.BULK_CHANGES_MIN = int(sys.argv[2])
    with Server(sys.argv[1]) as server, FunctionThread() as thread:
        database = server.open(DATABASE)
        index = database.indexes.get(definition())
        print("begun", flush=True)
        index.build(database, IndexFunctions(thread.pool, thread.loop)).result()
        print("built", flush=True)


if __name__ == "__main__":
    main()
