"""A person at the page, as the server sees one: saves on a beat over HTTP, by the rules of core/outbox.ts."""

import http.client
import json
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from engine.pipeline import accounts
from engine.store.session import Workspace
from tests.faults.ground import POINT, WHOLE_PICTURE, Journal

# core/outbox.ts: an act without an answer waits this long, twice as long each time, up to the last.
FIRST_DELAY_S, LAST_DELAY_S = 0.8, 15.0
# An act that nobody took for so long counts as failed; people would have called somebody.
GIVES_UP_S = 60.0
UNSIGNED, TOO_MANY, FAULTY = 401, 429, 500


@dataclass
class Site:
    """What a proxy in front knows: the port of the web process that serves now."""

    port: int = 0


@dataclass
class Saves:
    """What the people at the page met: the journal of what was acknowledged, and how long it took."""

    journal: Journal = field(default_factory=Journal)
    # Acts that were refused or given up; seconds of each answer, and of each act until it was acknowledged.
    failed: list[str] = field(default_factory=list)
    answered_in_s: list[float] = field(default_factory=list)
    saved_in_s: list[float] = field(default_factory=list)
    # How long people were at it.
    lasted_s: float = 0.0

    @property
    def n_sent_again(self) -> int:
        """Requests that brought no yes."""
        return len(self.answered_in_s) - len(self.saved_in_s)


class Page(threading.Thread):
    """One signed-in person with an image open. What they do while the server is away waits its turn."""

    def __init__(self, workspace: Workspace, site: Site, user_id: int, saves: Saves, every_s: float) -> None:
        super().__init__(daemon=True)
        self.site, self.saves, self.every_s = site, saves, every_s
        with workspace.write() as session:
            self.cookie, row = accounts.open_session(session, workspace.settings, user_id)
            self.csrf_token = row.csrf_token
        self.stopped = threading.Event()
        self.assignment: dict[str, Any] = {}

    def open_image(self, dataset: str) -> None:
        """Borrows the next image, as the page does before anything else."""
        status, answer, _ = self._post(f"/datasets/{dataset}/assignments", {})
        assert status == 200 and answer["assignment"], f"no image: {status} {answer}"
        self.assignment = answer["assignment"]

    def run(self) -> None:
        due = time.monotonic()
        while not self.stopped.is_set():
            self._save(f"/assignments/{self.assignment['id']}/masks", self._act())
            due += self.every_s
            self.stopped.wait(max(0.0, due - time.monotonic()))

    def leave(self) -> None:
        """Ends once the act in hand was answered."""
        self.stopped.set()
        self.join()

    def _act(self) -> dict[str, Any]:
        mask = {"segmentation": WHOLE_PICTURE, "model_version_id": self.assignment["model"]["id"]}
        return {"client_id": str(uuid.uuid4()), "prompts": [POINT], "chosen": [0], **mask}

    def _save(self, path: str, act: dict[str, Any]) -> None:
        began, delay_s = time.monotonic(), FIRST_DELAY_S
        status, answer = 0, dict[str, Any]()
        while time.monotonic() - began < GIVES_UP_S:
            sent_at = time.monotonic()
            status, answer, retry_after_s = self._post(path, act)
            self.saves.answered_in_s.append(time.monotonic() - sent_at)
            if status in (200, 201):
                self.saves.journal.note(act["client_id"], answer["id"])
                self.saves.saved_in_s.append(time.monotonic() - began)
                return
            self.saves.journal.troubles[f"{status} {answer.get('detail', answer)}"[:200]] += 1
            if status and status not in (UNSIGNED, TOO_MANY) and status < FAULTY:
                break
            time.sleep(max(delay_s, retry_after_s))
            delay_s = min(delay_s * 2, LAST_DELAY_S)
        self.saves.failed.append(f"{status} {answer}"[:200])

    def _post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any], float]:
        """(status, body, Retry-After in s); status 0 when no answer came back."""
        port = self.site.port
        # Behind TLS the cookie has one name; here it has the port's, see annotator_ui/auth.py.
        headers = {"Cookie": f"maskloop_{port}={self.cookie}", "X-CSRF-Token": self.csrf_token}
        headers["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST", f"/api/v1{path}", json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read()), float(answer.headers.get("Retry-After", 0))
        except (OSError, http.client.HTTPException, ValueError) as error:
            return 0, {"detail": f"no answer: {error}"}, 0.0
        finally:
            connection.close()
