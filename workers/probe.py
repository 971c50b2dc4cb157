"""`python -m workers.probe --queues cpu,train` or `--tick`: whether the work of this machine moves.

For containers and cron: 0 when it does, 1 and a sentence on stderr when jobs wait that nobody takes.
"""

import argparse
import sys
from collections.abc import Sequence

from engine.config import load_settings
from engine.errors import MaskloopError
from engine.pipeline import health
from workers.job_task import JobTask


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of the probe."""
    parser = argparse.ArgumentParser("python -m workers.probe", description="Asks whether work moves.")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--queues", help="the queues whose jobs must move")
    asked.add_argument("--tick", action="store_true", help="this home must have ticked in the last minute")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings()
        if options.tick:
            found = health.tick(settings, must_tick=True)
        else:
            found = health.jobs(JobTask(settings).workspace(), options.queues.split(","))
    except MaskloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not found.is_ok:
        print(found.answer, file=sys.stderr)
    return 0 if found.is_ok else 1


if __name__ == "__main__":
    sys.exit(main())
