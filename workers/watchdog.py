"""A clock outside of Python, for native code that lets no thread of its process run, heartbeats included."""

import faulthandler
import threading
import time


def watch_this_process(stall_s: float) -> None:
    """Ends the process with code 1 once no Python code of it has run for `stall_s`, a quarter more at most.

    The stacks of all threads go to stderr first. The clock is a thread of the kernel's that needs no
    interpreter lock; never fork a process that is watched, the child would wait for that thread at its end.
    """
    threading.Thread(target=_wind, args=(stall_s,), name="watchdog", daemon=True).start()


def _wind(stall_s: float) -> None:
    while True:
        faulthandler.dump_traceback_later(1.25 * stall_s, exit=True)
        time.sleep(stall_s / 4)
