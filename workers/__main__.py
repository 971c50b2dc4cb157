"""`python -m workers`: one worker process, which also ticks unless told otherwise.

Embedded (broker memory://) everything happens in this process, jobs in threads. With Redis the jobs run in
forked children, and any number of such processes may serve one home.
"""

import argparse
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery import Celery, signals
from celery.exceptions import WorkerLostError
from celery.platforms import SecurityWarning
from celery.utils.log import get_multiprocessing_logger

from engine import logs
from engine.config import Settings, load_settings
from engine.errors import BadInput, MaskloopError
from workers.app import is_embedded, make_app
from workers.job_task import GRACE_S, JobTask
from workers.tick import CeleryBroker, Tick, keep_ticking
from workers.watchdog import watch_this_process

QUEUES = ("cpu", "gpu", "train", "export")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM or Ctrl-C; 1 with one line on stderr for a stated failure."""
    options = _options(arguments)
    # The warning is about messages that carry code; ours are JSON with one number.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    try:
        settings = load_settings(options.home)
        logs.begin(settings, "tick" if options.only_tick else "worker")
        options.queues = _queues(options.queues)
        only_tick = options.only_tick or options.only_wake
        if is_embedded(settings) and (only_tick or not options.tick):
            raise BadInput("with the in-memory broker one process does all: leave out --no-tick, --only-...")
        os.nice(settings.worker.nice)
        return _only_tick(settings, asks=not options.only_wake) if only_tick else _work(settings, options)
    except MaskloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m workers", description="Runs Maskloop's jobs.")
    parser.add_argument("--home", type=Path, help="home folder (else MASKLOOP_HOME, else ~/.maskloop)")
    parser.add_argument("--queues", default=",".join(QUEUES), help="queues to serve, with commas between")
    parser.add_argument(
        "--slow-places",
        type=int,
        help="of worker.threads, how many may run jobs of minutes at once (default: all but one)",
    )
    parser.add_argument(
        "--no-tick", dest="tick", action="store_false", help="leave due work to another process"
    )
    parser.add_argument("--only-tick", action="store_true", help="look for due work and run none of it")
    parser.add_argument(
        "--only-wake",
        action="store_true",
        help="wake workers for waiting jobs, ask for no new ones, run none",
    )
    return parser.parse_args(arguments)


def _queues(wanted: str) -> list[str]:
    queues = wanted.split(",")
    if unknown := set(queues) - set(QUEUES):
        raise BadInput(f"no queue is called {', '.join(sorted(unknown))}: choose of {', '.join(QUEUES)}")
    return queues


def _work(settings: Settings, options: argparse.Namespace) -> int:
    slow_places = options.slow_places or max(1, settings.worker.threads - 1)
    _bound_torch(slow_places)
    run = JobTask(settings, queues=options.queues, slow_places=slow_places)
    # Opened before anything starts, so that a database that cannot be used is said at once.
    app = make_app(settings, run)
    # Before the worker is made, which configures logging unless somebody else says that they did.
    signals.setup_logging.connect(_log_as_we_do, weak=False)
    tick, worker = _tick(app, settings, run), _worker(app, settings, options.queues)
    stopped = threading.Event()

    def ready(**_: Any) -> None:
        if options.tick:
            threading.Thread(target=keep_ticking, args=(tick, stopped), name="tick", daemon=True).start()
        named = ",".join(options.queues)
        print(f"worker ready: queues {named}, {settings.worker.threads} jobs at once", flush=True)

    def stopping(**_: Any) -> None:
        run.stopping.set()
        stopped.set()
        threading.Thread(target=_end_by_force, args=(worker, run), name="grace", daemon=True).start()

    def failed(exception: Exception | None = None, **_: Any) -> None:
        if isinstance(exception, WorkerLostError) and not stopped.is_set():
            run.bury(worker.pool.info["processes"], cause_of_death(str(exception)))

    def watch(**_: Any) -> None:
        watch_this_process(settings.worker.stall_s)

    # Where jobs run in forked children these are watched, and never the parent they are forked from.
    runs_jobs = signals.worker_ready if is_embedded(settings) else signals.worker_process_init
    runs_jobs.connect(watch, weak=False)
    signals.task_failure.connect(failed, weak=False)
    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutting_down.connect(stopping, weak=False)
    worker.start()
    run.give_back()
    return int(worker.exitcode or 0)


def _log_as_we_do(**_: Any) -> None:
    """The pool's own logger speaks through ours; Celery changes nothing once this is connected."""
    get_multiprocessing_logger().propagate = True


def _worker(app: Celery, settings: Settings, queues: list[str]) -> Any:
    return app.Worker(
        pool="threads" if is_embedded(settings) else "prefork",
        concurrency=settings.worker.threads,
        queues=queues,
        loglevel="WARNING",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        optimization="fair",
    )


def _bound_torch(slow_places: int) -> None:
    """Shares the cores out among the jobs of minutes, before anything imports torch, which reads this once.

    The place kept free for an annotator's image gets as many; it works for a moment at a time."""
    threads = max(1, len(os.sched_getaffinity(0)) // slow_places)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def cause_of_death(lost: str) -> str:
    """A sentence for people from what the pool says of a child that died, which names signal or exit code."""
    if "SIGKILL" in lost:
        return "its process was killed (SIGKILL): most likely the machine ran out of memory"
    if found := re.search(r"signal \d+ \((\w+)\)", lost):
        return f"its process crashed ({found[1]}) in native code: this input may be what it cannot take"
    code = re.search(r"exitcode (-?\d+)", lost)
    return f"its process ended in the middle of the job (exit code {code[1] if code else 'unknown'})"


def _tick(app: Celery, settings: Settings, run: JobTask) -> Tick:
    limit = 2 * settings.worker.threads if is_embedded(settings) else 32
    return Tick(run.workspace(), CeleryBroker(app), limit=limit)


def _only_tick(settings: Settings, asks: bool) -> int:
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    run = JobTask(settings)
    tick = replace(_tick(make_app(settings, run), settings, run), asks=asks)
    print("tick ready", flush=True)
    keep_ticking(tick, stopped)
    return 0


def _end_by_force(worker: Any, run: JobTask) -> None:
    """Ends what still runs after the grace: its jobs are queued again, its late writes refused."""
    threading.Event().wait(GRACE_S)
    run.give_back()
    for process_id in worker.pool.info.get("processes", []):
        os.kill(process_id, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
