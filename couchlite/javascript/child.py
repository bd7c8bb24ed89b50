"""The program of a child process: JavaScript contexts, and nothing else that a function could reach.

It is run as a file by a bare interpreter, and imports nothing but the engine and the means to bound itself: a
child costs some 6 MB. Standard input is a socket, on which requests and answers alternate:

    request   u8 operation, u32 length, 16 bytes (the key of a program), JSON text
    answer    u8 1 if this process has grown too big to be kept, u32 length, JSON text

    LOAD      a program, {"design": ..., "path": [...]}, to be called by its key from now on
    others    call the program: harness.js says how

A list function gets its rows while it runs: an answer that "wants" something is not the last one. If it wants
"rows", the next request is their JSON text, whatever its operation and key, [] once there are no more; if it
wants "nothing", the next answer follows by itself.

An answer is the harness's, or {"unknown": true} for a program that isn't loaded (it never was, or was dropped
to make room), or {"exceeded": "time"|"memory"|"null"|"answer", "at": index of the document}; then the program
is dropped, too. What goes wrong in this file itself is the last answer, {"failed": traceback}.

What must stay true here: each program has a context, and so a heap and globals, of its own; and a call ends,
whatever the function does: the engine interrupts it, or the kernel ends the process.
"""

import functools
import json
import os
import resource
import signal
import struct
import sys
import traceback
from collections import OrderedDict
from collections.abc import Callable, Sequence

LOAD, COMPILE, FILTER, FILTER_VIEW, VALIDATE, MAP, REDUCE, RESOLVE, SHOW, UPDATE, REWRITE, LIST = range(12)
COMMANDS = (
    *("load", "compile", "filter", "filter_view", "validate", "map", "reduce", "resolve"),
    *("show", "update", "rewrite", "list"),
)

REQUEST_HEAD = struct.Struct("!BI16s")
ANSWER_HEAD = struct.Struct("!BI")

# Programs kept. One takes about 100 KB and what its function keeps in globals.
PROGRAMS_MAX = 100
# A process with more memory in use after a call is not kept: it would hardly give it back.
RESIDENT_BYTES_MAX = 256 * 1024 * 1024
# Beyond the limit of the engine, for what it does without looking at the time.
CPU_TIME_GRACE_S = 0.5
# For how much of the time limit for one document a batch of them may run before it is left unfinished.
BATCH_TIME_SHARE = 0.2
FILES_MAX = 16

Harness = Callable[[str, str], str]


class Program:
    """A context with the harness in it."""

    def __init__(self, sources: Sequence[str], time_limit_s: float, memory_limit_bytes: int) -> None:
        self._context = _quickjs.Context()
        self._context.set_memory_limit(memory_limit_bytes)
        self._context.set_time_limit(time_limit_s)
        self._context.add_callable("tell", functools.partial(tell, time_limit_s))
        source, render_source = sources
        make = self._context.eval(source)
        self.harness: Harness = make(1000 * time_limit_s * BATCH_TIME_SHARE, render_source)

    def leave_time_to_kernel(self) -> None:
        """The engine, which can't watch the time of what calls back, doesn't from now on."""
        self._context.set_time_limit(-1)


def main(time_limit_s: float, memory_limit_bytes: int, answer_bytes_max: int) -> None:
    folder = os.path.dirname(__file__)
    sources = []
    for name in ("harness.js", "render.js"):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            sources.append(file.read())
    confine(memory_limit_bytes)
    programs: OrderedDict[bytes, Program] = OrderedDict()
    while head := read(REQUEST_HEAD.size):
        operation, length, key = REQUEST_HEAD.unpack(head)
        text = read(length).decode()
        watch(time_limit_s)
        if operation == LOAD:
            programs[key] = Program(sources, time_limit_s, memory_limit_bytes)
            if len(programs) > PROGRAMS_MAX:
                programs.popitem(last=False)
        elif operation == LIST and key in programs:
            programs[key].leave_time_to_kernel()
        answer = call(programs, key, COMMANDS[operation], text, answer_bytes_max)
        watch(None)
        write(ANSWER_HEAD.pack(resident_bytes() > RESIDENT_BYTES_MAX, len(answer)) + answer)


def watch(time_limit_s: float | None) -> None:
    """Let the kernel end this process if the engine doesn't end a call."""
    signal.setitimer(signal.ITIMER_PROF, 0 if time_limit_s is None else time_limit_s + CPU_TIME_GRACE_S)


def tell(time_limit_s: float, text: str, wants_rows: bool) -> str:
    """Send an answer that isn't the last one; gives the rows, if they are wanted."""
    answer = text.encode()
    write(ANSWER_HEAD.pack(False, len(answer)) + answer)
    if not wants_rows:
        return ""
    watch(None)
    head = read(REQUEST_HEAD.size)
    if not head:
        os._exit(0)  # nobody is there to run on for
    rows = read(REQUEST_HEAD.unpack(head)[1]).decode()
    watch(time_limit_s)
    return rows


def confine(memory_limit_bytes: int) -> None:
    """Take from this process what it doesn't need, so that a hole in the engine leads nowhere."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then closes the socket
    for what, limit in (
        (resource.RLIMIT_AS, 4 * memory_limit_bytes + RESIDENT_BYTES_MAX),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, FILES_MAX),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(what, (limit, limit))


def call(
    programs: OrderedDict[bytes, Program], key: bytes, command: str, text: str, answer_bytes_max: int
) -> bytes:
    if key not in programs:
        return b'{"unknown":true}'
    programs.move_to_end(key)
    harness = programs[key].harness
    try:
        answer = harness(command, text).encode()
        exceeded = "answer" if len(answer) > answer_bytes_max else None
    except _quickjs.JSException as error:
        exceeded = what_was_exceeded(str(error))
    if exceeded is None:
        return answer
    del programs[key]
    try:
        at = harness("at", "")
    except _quickjs.JSException:  # no memory even for that
        at = "0"
    return f'{{"exceeded":"{exceeded}","at":{at}}}'.encode()


def what_was_exceeded(error: str) -> str:
    if error.startswith("InternalError: interrupted"):
        return "time"
    return "memory" if error.startswith("InternalError") else "null"


def resident_bytes() -> int:
    """Of memory, in use now; where the system doesn't tell, the most that ever was (Linux counts the parent's
    in that)."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


def read(size: int) -> bytes:
    """Exactly so much; nothing once the other side is gone."""
    parts = []
    while size:
        part = os.read(0, min(size, 1 << 20))
        if not part:
            return b""
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(0, view) :]


if __name__ == "__main__":  # not when the parent imports what is above
    # The engine. Its wrapper, the module `quickjs`, would start a thread and take half as much memory again.
    import _quickjs

    try:
        main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    except Exception:
        last = json.dumps({"failed": traceback.format_exc()}).encode()
        write(ANSWER_HEAD.pack(True, len(last)) + last)
