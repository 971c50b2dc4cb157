"""A simulated annotator: takes an image, clicks, accepts and submits exactly as the page does for a person.

Clicks follow the paper's evaluation (appendix D.1): first the middle of the object, then the centre of the
largest error. Times are modelled, so a run tells the same seconds on every machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.geometry.points import error_point, interior_point
from engine.geometry.quality import iou_masks
from engine.geometry.rle import Rle, decode
from engine.pipeline import accounts, annotate, assign, pictures, predict, report, review
from engine.pipeline.annotate import Accept
from engine.pipeline.assign import Waiting
from engine.pipeline.predict import Candidate
from engine.simulation.truth import Truth, by_prominence
from engine.store.session import Workspace

Mask = NDArray[np.bool_]
# A region somebody drew before is the object when they overlap by half; it is not drawn again.
_SAME_OBJECT_IOU = 0.5


@dataclass(frozen=True)
class Habits:
    """How somebody works. The seconds add up to 14 a mask at six clicks, as late in stage 1 of the paper.

    `wander_px` is the spread of the hand around the point meant; 0 clicks exactly.
    """

    target_iou: float = 0.85
    max_clicks: int = 20
    least_iou: float = 0.5
    # What was prefilled is let stand from this IoU on.
    keep_iou: float = 0.75
    budget_s: float = 300.0
    find_s: float = 4.0
    look_s: float = 0.5
    click_s: float = 1.5
    accept_s: float = 1.0
    wander_px: float = 0.0


@dataclass(frozen=True)
class Turn:
    """What became of one image, with the simulated seconds spent on it."""

    image_id: int
    n_masks: int
    n_given_up: int
    seconds: float
    n_kept: int = 0
    n_corrected: int = 0
    n_rejected: int = 0


@dataclass
class Attempt:
    """One mask in the making: prompts and choices so far, and where it was best."""

    prompts: list[dict[str, Any]] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    seconds: float = 0.0
    best: Candidate | None = None
    best_iou: float = 0.0
    n_best: int = 0


@dataclass
class Looked:
    """What became of the prefilled masks of an image; `standing` are those nobody has to draw any more."""

    standing: list[Mask] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    n_kept: int = 0
    n_corrected: int = 0
    seconds: float = 0.0


@dataclass
class SimulatedAnnotator:
    """One annotator with an account of its own (role `simulated`) on one dataset."""

    workspace: Workspace
    dataset_id: int
    truth: Truth
    habits: Habits
    number: int = 1
    seed: int = 0
    user_id: int = field(init=False)

    def __post_init__(self) -> None:
        name = f"simulated-{self.dataset_id}-{self.number}"
        with self.workspace.write() as session:
            known = [user for user in accounts.list_users(session) if user.name == name]
            self.user_id = (known[0] if known else accounts.add_user(session, name, "simulated")).id
        self._rng = np.random.default_rng([self.seed, self.number])

    def take(self) -> dict[str, Any] | Waiting:
        """The next image under a lease, as the page sees it, or why there is none."""
        settings = self.workspace.settings
        with self.workspace.write() as session:
            found = assign.next_assignment(session, settings, self.dataset_id, self.user_id)
            return found if isinstance(found, Waiting) else report.assignment_view(session, found)

    def leave(self, view: dict[str, Any], reason: str) -> None:
        """Sets the image aside."""
        with self.workspace.write() as session:
            assign.skip(session, self.workspace.settings, view["id"], self.user_id, reason)

    def work_on(self, view: dict[str, Any], n_masks: int) -> Turn:
        """Draws up to `n_masks` objects within the time budget, what stands out first, then submits."""
        n_drawn = n_given_up = 0
        looked = self._review(view)
        seconds = looked.seconds
        for number, truth_mask in self._objects(view, looked.standing):
            left_s = self.habits.budget_s - seconds
            if n_drawn == n_masks or left_s < self.habits.find_s + self.habits.click_s + self.habits.accept_s:
                break
            attempt = self._attempt(view["id"], truth_mask, left_s)
            seconds += attempt.seconds
            if attempt.best is None or attempt.best_iou < self.habits.least_iou:
                n_given_up += 1
                continue
            self._accept(view, number, attempt)
            n_drawn += 1
        with self.workspace.write() as session:
            review.keep_rest(session, self.workspace.settings, self.user_id, view["id"])
            assign.submit(session, self.workspace.settings, view["id"], self.user_id)
        judged = (looked.n_kept, looked.n_corrected, len(looked.rejected))
        return Turn(view["image"]["id"], n_drawn, n_given_up, seconds, *judged)

    def _review(self, view: dict[str, Any]) -> Looked:
        """Looks at everything prefilled: lets it stand, corrects it by clicks, or refuses it."""
        looked = Looked()
        truths = [decode(rle) for rle in self.truth.of(view["image"]["name"])]
        for proposal in view["proposals"]:
            if proposal["state"] != "open":
                continue
            looked.seconds += self.habits.look_s
            mask = decode(_rle(proposal["segmentation"]))
            ious = [iou_masks(mask, truth) for truth in truths]
            nearest = int(np.argmax(ious)) if ious else -1
            if not ious or ious[nearest] < self.habits.least_iou:
                looked.rejected.append(proposal["id"])
                looked.seconds += self.habits.accept_s
            elif ious[nearest] >= self.habits.keep_iou or not self._correct(
                view, proposal, mask, truths[nearest], looked
            ):
                looked.standing.append(mask)
                looked.n_kept += 1
        self._reject(view, looked.rejected)
        return looked

    def _correct(
        self, view: dict[str, Any], proposal: dict[str, Any], mask: Mask, truth: Mask, looked: Looked
    ) -> bool:
        """Clicks on from the proposal's own prompts; False when that made nothing better of it."""
        left_s = self.habits.budget_s - looked.seconds
        before = iou_masks(mask, truth)
        begun = Attempt(list(proposal["prompts"]), list(proposal["chosen"]), best_iou=before)
        attempt = self._refine(view["id"], truth, mask, begun, left_s)
        looked.seconds += attempt.seconds
        if attempt.best is None:
            return False
        self._accept(view, f"proposal-{proposal['id']}", attempt, proposal_id=proposal["id"])
        looked.standing.append(decode(attempt.best.segmentation))
        looked.n_corrected += 1
        return True

    def _reject(self, view: dict[str, Any], proposal_ids: Sequence[int]) -> None:
        """As "reject all" in the page does: many at once, each request repeatable."""
        for start in range(0, len(proposal_ids), review.MOST_AT_ONCE):
            client_id = f"simulated-{view['id']}-reject-{start}"
            some = proposal_ids[start : start + review.MOST_AT_ONCE]
            with self.workspace.write() as session:
                settings = self.workspace.settings
                review.reject(session, settings, self.user_id, view["id"], client_id, some)

    def _objects(self, view: dict[str, Any], standing: Sequence[Mask] = ()) -> list[tuple[int, Mask]]:
        """(number in the truth, mask) of what is still to be drawn, in the order of prominence."""
        rles = self.truth.of(view["image"]["name"])
        drawn = [decode(_rle(mask["segmentation"])) for mask in view["masks"]] + list(standing)
        pixels = pictures.pixels_of(self.workspace, view["image"]["id"])
        truths = ((number, decode(rles[number])) for number in by_prominence(pixels, rles))
        return [
            (number, mask)
            for number, mask in truths
            if mask.any() and not any(iou_masks(mask, other) >= _SAME_OBJECT_IOU for other in drawn)
        ]

    def _attempt(self, assignment_id: int, truth: Mask, left_s: float) -> Attempt:
        """Clicks until the target, the click limit or the end of the time; remembers the best state."""
        nothing = np.zeros_like(truth)
        return self._refine(assignment_id, truth, nothing, Attempt(seconds=self.habits.find_s), left_s)

    def _refine(
        self, assignment_id: int, truth: Mask, mask: Mask, attempt: Attempt, left_s: float
    ) -> Attempt:
        habits = self.habits
        while len(attempt.prompts) < habits.max_clicks and attempt.best_iou < habits.target_iou:
            if attempt.seconds + habits.click_s + habits.accept_s > left_s:
                break
            prompt = self._click(truth, mask, attempt)
            if prompt is None:
                break
            attempt.prompts.append(prompt)
            offered = predict.predict(
                self.workspace, assignment_id, self.user_id, attempt.prompts, attempt.chosen
            )
            mask = _look(attempt, offered.candidates, truth)
        attempt.seconds += habits.accept_s
        return attempt

    def _click(self, truth: Mask, mask: Mask, attempt: Attempt) -> dict[str, Any] | None:
        """The next prompt, or None when the same click would be made again without end."""
        if attempt.prompts:
            aim = error_point(truth, mask)
        else:
            aim = (*interior_point(truth), 1)
        if aim is None:
            return None
        x, y = self._hand(aim[0], aim[1], truth)
        attempt.seconds += self.habits.click_s
        at_ms = round(attempt.seconds * 1000)
        return {"kind": "point", "x": float(x), "y": float(y), "label": aim[2], "at_ms": at_ms}

    def _hand(self, x: int, y: int, truth: Mask) -> tuple[int, int]:
        """Where the hand lands; a landing on the other side of the object's border is corrected before."""
        if self.habits.wander_px == 0:
            return x, y
        moved = np.rint(np.array([x, y]) + self._rng.normal(0, self.habits.wander_px, 2)).astype(int)
        there_x, there_y = np.clip(moved, 0, [truth.shape[1] - 1, truth.shape[0] - 1])
        same_side = truth[there_y, there_x] == truth[y, x]
        return (int(there_x), int(there_y)) if same_side else (x, y)

    def _accept(
        self, view: dict[str, Any], name: int | str, attempt: Attempt, proposal_id: int | None = None
    ) -> None:
        assert attempt.best is not None
        act = Accept(
            assignment_id=view["id"],
            # The same act has the same id, so a run that was cut short and goes on repeats nothing.
            client_id=f"simulated-{view['id']}-{name}",
            prompts=attempt.prompts[: attempt.n_best],
            chosen=attempt.chosen[: attempt.n_best],
            segmentation=attempt.best.segmentation,
            model_version_id=view["model"]["id"],
            predicted_iou=attempt.best.predicted_iou,
            stability_score=attempt.best.stability_score,
            active_ms=round(attempt.seconds * 1000),
            n_undos=len(attempt.prompts) - attempt.n_best,
            proposal_id=proposal_id,
        )
        with self.workspace.write() as session:
            annotate.accept(session, self.workspace.settings, self.user_id, act)


def _look(attempt: Attempt, candidates: Sequence[Candidate], truth: Mask) -> Mask:
    """Picks the candidate that fits best, as a person does by M, and gives its mask."""
    masks = [decode(candidate.segmentation) for candidate in candidates]
    ious = [iou_masks(mask, truth) for mask in masks]
    pick = int(np.argmax(ious))
    attempt.chosen.append(pick)
    if ious[pick] > attempt.best_iou:
        attempt.best, attempt.best_iou, attempt.n_best = candidates[pick], ious[pick], len(attempt.prompts)
    return masks[pick]


def _rle(segmentation: dict[str, Any]) -> Rle:
    return Rle(size=segmentation["size"], counts=segmentation["counts"])
