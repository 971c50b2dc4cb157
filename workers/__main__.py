"""`python -m workers`: one worker process, which also ticks unless told otherwise.

Embedded (broker memory://) everything happens in this process, jobs in threads. With Redis the jobs run in
forked children, and any number of such processes may serve one home.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from celery import Celery, signals
from celery.platforms import SecurityWarning

from engine.config import Settings, load_settings
from engine.errors import BadInput, MaskloopError
from workers.app import is_embedded, make_app
from workers.job_task import JobTask
from workers.tick import Tick, keep_ticking, sender

QUEUES = "cpu,gpu,train,export"
# From the signal to the end: running arrows get this long to reach their next step, then jobs are given back.
GRACE_S = 15.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM or Ctrl-C; 1 with one line on stderr for a stated failure."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for library in ("alembic", "celery"):
        logging.getLogger(library).setLevel(logging.WARNING)
    # The warning is about messages that carry code; ours are JSON with one number.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    try:
        settings = load_settings(options.home)
        if is_embedded(settings) and (options.only_tick or not options.tick):
            raise BadInput("with the in-memory broker one process does all: leave out --no-tick, --only-tick")
        os.nice(settings.worker.nice)
        return _only_tick(settings) if options.only_tick else _work(settings, options)
    except MaskloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m workers", description="Runs Maskloop's jobs.")
    parser.add_argument("--home", type=Path, help="home folder (else MASKLOOP_HOME, else ~/.maskloop)")
    parser.add_argument("--queues", default=QUEUES, help=f"queues to serve, of {QUEUES}")
    parser.add_argument(
        "--no-tick", dest="tick", action="store_false", help="leave due work to another process"
    )
    parser.add_argument("--only-tick", action="store_true", help="look for due work and run none of it")
    return parser.parse_args(arguments)


def _work(settings: Settings, options: argparse.Namespace) -> int:
    run = JobTask(settings)
    # Opened before anything starts, so that a database that cannot be used is said at once.
    app = make_app(settings, run)
    tick, worker = _tick(app, settings, run), _worker(app, settings, options.queues.split(","))
    stopped = threading.Event()

    def ready(**_: Any) -> None:
        if options.tick:
            threading.Thread(target=keep_ticking, args=(tick, stopped), name="tick", daemon=True).start()
        print(f"worker ready: queues {options.queues}, {settings.worker.threads} jobs at once", flush=True)

    def stopping(**_: Any) -> None:
        run.stopping.set()
        stopped.set()
        threading.Thread(target=_end_by_force, args=(worker, run), name="grace", daemon=True).start()

    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutting_down.connect(stopping, weak=False)
    # A connected receiver tells Celery that logging is configured already.
    signals.setup_logging.connect(lambda **_: None, weak=False)
    worker.start()
    run.give_back()
    return int(worker.exitcode or 0)


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


def _tick(app: Celery, settings: Settings, run: JobTask) -> Tick:
    if not is_embedded(settings):
        return Tick(run.workspace(), sender(app))
    threads = settings.worker.threads
    return Tick(run.workspace(), sender(app), limit=8 * threads, n_slow=max(1, threads - 1))


def _only_tick(settings: Settings) -> int:
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    run = JobTask(settings)
    tick = _tick(make_app(settings, run), settings, run)
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
