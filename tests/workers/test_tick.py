"""The tick and the task body: what is due is asked once, sent until claimed, and run once."""

import logging
import threading
import time

import pytest
from sqlalchemy import func, select, text

from engine.errors import Unavailable
from engine.pipeline import loop
from engine.store import jobs
from engine.store.embeddings import Embedding
from engine.store.jobs import Due, Job
from engine.store.session import Workspace
from tests.store.test_jobs import ask, claimed, expire
from tests.workers.conftest import open_stage
from workers.app import make_app
from workers.job_task import JobTask
from workers.tasks import task_name
from workers.tick import Tick, keep_ticking


def ids(sent: list[Due]) -> list[int]:
    return [job.job_id for job in sent]


def test_every_arrow_of_the_loop_has_a_task_of_its_name(sqlite_workspace: Workspace) -> None:
    app = make_app(sqlite_workspace.settings)
    ours = {name for name in app.tasks if name.startswith("maskloop.")}
    assert ours == {task_name(kind) for kind in loop.ARROWS} and "maskloop.embed" in ours


def test_messages_are_json_and_leave_no_results_or_events(sqlite_workspace: Workspace) -> None:
    conf = make_app(sqlite_workspace.settings).conf
    assert (conf.accept_content, conf.task_serializer, conf.result_backend) == (["json"], "json", None)
    assert conf.task_ignore_result and not conf.task_acks_late and conf.worker_prefetch_multiplier == 1
    assert not conf.worker_enable_remote_control and not conf.worker_send_task_events


def test_a_job_message_delivered_three_times_embeds_once(workspace: Workspace, tiny_weights: bytes) -> None:
    open_stage(workspace, tiny_weights, n_images=1)
    sent: list[Due] = []
    Tick(workspace, sent.append)()
    task = make_app(workspace.settings).tasks[task_name(sent[0].kind)]
    for _ in range(3):
        task.apply(args=[sent[0].job_id])
    with workspace.read() as session:
        assert session.scalar(select(func.count()).select_from(Embedding)) == 1
        assert session.scalars(select(Job.attempt)).all() == [1]


def test_due_work_is_asked_once_however_many_tick(workspace: Workspace, tiny_weights: bytes) -> None:
    open_stage(workspace, tiny_weights, n_images=2)
    sent: list[Due] = []
    ticks = [Tick(workspace, sent.append) for _ in range(3)]
    threads = [threading.Thread(target=tick) for tick in ticks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with workspace.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 2
    assert len(set(ids(sent))) <= 2


def test_a_lost_message_is_sent_again_and_a_claimed_job_is_not(sqlite_workspace: Workspace) -> None:
    sent: list[Due] = []
    patient, hasty = Tick(sqlite_workspace, sent.append), Tick(sqlite_workspace, sent.append, again_s=0.0)
    job_id = ask(sqlite_workspace)
    assert [patient(), patient()] == [1, 0]
    assert [hasty(), hasty()] == [1, 1]
    claimed(sqlite_workspace, job_id)
    assert [patient(), hasty()] == [0, 0]
    expire(sqlite_workspace, job_id)
    assert patient() == 1, "a new attempt is sent at once"


def test_slow_jobs_leave_a_thread_to_the_urgent(sqlite_workspace: Workspace) -> None:
    sent: list[Due] = []
    tick = Tick(sqlite_workspace, sent.append, n_slow=1)
    slow = [ask(sqlite_workspace, f"slow:{n}", priority=60) for n in range(2)]
    urgent = ask(sqlite_workspace, "urgent", priority=10)
    tick()
    assert ids(sent) == [urgent, slow[0]]
    first = claimed(sqlite_workspace, slow[0])
    assert tick() == 0
    with sqlite_workspace.write() as session:
        jobs.finish(session, first, {})
    tick()
    assert ids(sent)[-1] == slow[1]


def test_a_broken_broker_stops_no_tick_and_is_said_once(
    sqlite_workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    stopped, tries = threading.Event(), []

    def away(job: Due) -> None:
        tries.append(job)
        raise Unavailable("the broker does not answer")

    ask(sqlite_workspace)
    thread = threading.Thread(target=keep_ticking, args=(Tick(sqlite_workspace, away), stopped))
    with caplog.at_level(logging.WARNING):
        thread.start()
        end = time.monotonic() + 10
        while len(tries) < 3 and time.monotonic() < end:
            time.sleep(0.05)
        stopped.set()
        thread.join()
    assert len(tries) >= 3 and caplog.text.count("no tick") == 1


def test_a_dataset_the_loop_stumbles_over_holds_up_no_waiting_job(
    sqlite_workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = ask(sqlite_workspace)
    with sqlite_workspace.write() as session:
        session.execute(
            text("INSERT INTO datasets (id, name, created_at, settings) VALUES (9, 'x', 'soon', '{}')")
        )
    sent: list[Due] = []
    Tick(sqlite_workspace, sent.append)()
    assert ids(sent) == [job_id] and "could not be asked for" in caplog.text


def test_a_message_with_an_unknown_id_is_dropped_with_a_line(
    sqlite_workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    JobTask(sqlite_workspace.settings)(404)
    assert "there is no job 404" in caplog.text


def test_a_stopping_worker_claims_nothing_and_gives_back_what_it_holds(sqlite_workspace: Workspace) -> None:
    run = JobTask(sqlite_workspace.settings)
    held = claimed(sqlite_workspace, ask(sqlite_workspace, "held"), f"{run.worker}/7")
    waiting = ask(sqlite_workspace, "waiting")
    run.stopping.set()
    run(waiting)
    assert run.give_back() == 1
    with sqlite_workspace.read() as session:
        assert {jobs.state_of(session, job_id) for job_id in (held.job_id, waiting)} == {"queued"}
