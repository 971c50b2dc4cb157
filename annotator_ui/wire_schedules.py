"""Schedules between page and server: when a dataset's model is retrained, and what became of it."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from annotator_ui.wire import Answer, Plain, Request


class NewSchedule(Request):
    """Nightly at "HH:MM" (UTC), every so many new masks, or whichever of both comes first."""

    nightly_at: Annotated[Plain, Field(max_length=5)] | None = None
    every_new_masks: Annotated[int, Field(strict=True, ge=1, le=10**9)] | None = None


class StoppedJob(Answer):
    """The job a round stopped at; a retry goes on with the round."""

    id: int
    kind: str
    reason: str | None


class ScheduleRun(Answer):
    """One due time. `state` is waiting, started or skipped; `round_state` of a started one is running,
    failed, promoted, refused or unchanged; `reason` says why, in a sentence."""

    due: str
    due_at: datetime
    state: str
    reason: str | None
    started_at: datetime | None
    round: int | None
    round_state: str | None
    failed_job: StoppedJob | None


class Schedule(Answer):
    """`next_due_at` is the next night, `masks_to_go` what the count lacks; null where it has none."""

    id: int
    nightly_at: str | None
    every_new_masks: int | None
    created_at: datetime
    next_due_at: datetime | None
    masks_to_go: int | None
    runs: list[ScheduleRun]


class ScheduleList(Answer):
    schedules: list[Schedule]


class RemovedSchedule(Answer):
    id: int
    removed: bool
