"""Every verb on a small dataset: what it does, in words and in JSON."""

import io
import json
import subprocess
import sys
from pathlib import Path

from engine.cli.simulate import held_out_first
from tests.cli.conftest import Maskloop


def test_images_import_adds_what_is_new_and_names_what_is_refused(
    home: Path, maskloop: Maskloop, pictures: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture at all")
    ended = maskloop("images", "import", pictures, broken, "--dataset", "mine", "--home", home)
    assert (ended.code, ended.out) == (0, "6 images added to mine, 0 known, 1 refused\n")
    assert "broken.png: not an image" in ended.err
    again = maskloop("images", "import", pictures, "--dataset", "mine", "--home", home, "--json")
    assert (again.json["added"], again.json["known"]) == (0, 6)


def test_a_brand_new_home_is_set_up_by_the_first_import(
    maskloop: Maskloop, pictures: Path, tmp_path: Path
) -> None:
    ended = maskloop("images", "import", pictures, "--dataset", "mine", "--home", tmp_path / "new")
    assert ended.code == 0, ended.err
    assert maskloop("db", "check", "--home", tmp_path / "new").code == 0


def test_a_stage_is_opened_with_hyphens_or_underscores_and_closed(boxes: Path, maskloop: Maskloop) -> None:
    assert maskloop("stage", "open", "assisted-manual", "--home", boxes).code == 0
    assert maskloop("stage", "open", "assisted_manual", "--home", boxes).code == 0
    assert maskloop("stage", "show", "--home", boxes, "--json").json["open_stage"] == "assisted_manual"
    assert maskloop("stage", "close", "assisted-manual", "--home", boxes).code == 0
    assert "no stage is open" in maskloop("stage", "show", "--home", boxes).out
    closed = maskloop("stage", "close", "assisted-manual", "--home", boxes)
    assert closed.code == 1 and "is not open" in closed.err


def test_each_stage_opens_by_its_name_and_an_unknown_one_names_them(boxes: Path, maskloop: Maskloop) -> None:
    for name in ("semi-automatic", "fully_automatic", "assisted-manual"):
        assert maskloop("stage", "open", name, "--home", boxes).code == 0
        shown = maskloop("stage", "show", "--home", boxes, "--json").json
        assert shown["open_stage"] == name.replace("-", "_")
    ended = maskloop("stage", "open", "fourth", "--home", boxes)
    assert (ended.code, ended.out) == (1, "")
    assert "assisted_manual, semi_automatic, fully_automatic" in ended.err


def test_work_makes_the_embeddings_that_are_due_and_jobs_tells_of_them(
    boxes: Path, maskloop: Maskloop
) -> None:
    maskloop("stage", "open", "assisted-manual", "--home", boxes)
    ended = maskloop("work", "--until-idle", "--home", boxes, "--json")
    assert ended.json == {"done": 2}
    jobs = maskloop("jobs", "list", "--home", boxes, "--json").json
    assert [(job["kind"], job["state"]) for job in jobs] == [("embed", "done")] * 2
    shown = maskloop("jobs", "show", jobs[0]["id"], "--home", boxes)
    assert "embed" in shown.out and "done" in shown.out
    assert maskloop("work", "--until-idle", "--home", boxes).out == "nothing was due\n"


def test_a_round_asked_for_without_a_mask_fails_with_its_reason_and_can_be_retried(
    boxes: Path, maskloop: Maskloop
) -> None:
    assert maskloop("train", "--home", boxes, "--json").json == {"dataset": "boxes", "round": 1}
    assert "in progress" in maskloop("train", "--home", boxes).err
    assert maskloop("work", "--until-idle", "--home", boxes, "--json").json == {"failed": 1}
    (job,) = maskloop("jobs", "list", "--state", "failed", "--home", boxes, "--json").json
    assert job["reason"].startswith("there is no mask to train on yet")
    assert maskloop("jobs", "retry", job["id"], "--home", boxes).code == 0
    assert maskloop("jobs", "cancel", job["id"], "--home", boxes, "--json").json["state"] == "cancelled"
    assert "nothing to cancel" in maskloop("jobs", "cancel", job["id"], "--home", boxes).err


def test_masks_go_in_and_the_same_masks_come_out_verified(
    boxes: Path, maskloop: Maskloop, pictures: Path, tmp_path: Path
) -> None:
    assert maskloop("masks", "import", pictures / "truth.json", "--home", boxes, "--json").json["added"] == 18
    out = tmp_path / "out"
    ended = maskloop("export", "--home", boxes, "--out", out, "--images", "leave", "--json")
    assert (ended.json["n_masks"], ended.json["n_images"]) == (18, 6)
    assert not (out / "images").exists()
    assert maskloop("verify", out, "--json").json["ok"]
    before = json.loads((pictures / "truth.json").read_text())["annotations"]
    after = json.loads((out / "annotations.json").read_text())["annotations"]
    strings = [[(a["id"], a["image_id"], a["segmentation"]) for a in found] for found in (before, after)]
    assert strings[0] == strings[1]
    again = maskloop("export", "--home", boxes, "--out", out)
    assert again.code == 1 and "not empty" in again.err


def test_verify_ends_with_one_when_a_mask_was_changed(
    boxes: Path, maskloop: Maskloop, pictures: Path, tmp_path: Path
) -> None:
    maskloop("masks", "import", pictures / "truth.json", "--home", boxes)
    maskloop("export", "--home", boxes, "--out", tmp_path / "out")
    file = tmp_path / "out" / "annotations.json"
    file.write_text(file.read_text().replace('"area":690', '"area":691', 1))
    ended = maskloop("verify", tmp_path / "out")
    assert ended.code == 1
    assert "area is 691" in ended.out
    assert ended.err.count("\n") == 1


def test_snapshots_are_listed_shown_and_compared(boxes: Path, maskloop: Maskloop, pictures: Path) -> None:
    empty = maskloop("snapshot", "create", "--name", "empty", "--home", boxes, "--json").json
    maskloop("masks", "import", pictures / "truth.json", "--home", boxes)
    full = maskloop("snapshot", "create", "--name", "full", "--home", boxes, "--json").json
    assert (empty["n_masks"], full["n_masks"]) == (0, 18)
    listed = maskloop("snapshot", "list", "--home", boxes, "--json").json
    assert [row["name"] for row in listed] == ["empty", "full"]
    assert full["digest_sha256"] in maskloop("snapshot", "show", "full", "--home", boxes).out
    assert len(maskloop("snapshot", "diff", "empty", "full", "--home", boxes, "--json").json["added"]) == 18
    assert "dropped: 18" in maskloop("snapshot", "diff", "full", "empty", "--home", boxes).out
    missing = maskloop("snapshot", "show", "none", "--home", boxes)
    assert missing.code == 1 and "the newest are: full, empty" in missing.err


def test_models_are_listed_measured_and_promoted_by_hand(
    boxes: Path, maskloop: Maskloop, pictures: Path
) -> None:
    (row,) = maskloop("models", "list", "--home", boxes, "--json").json
    assert (row["model_version"], row["state"]) == ("small", "active")
    nothing = maskloop("models", "evaluate", "small", "--home", boxes)
    assert nothing.code == 1 and "no mask on a held-out image" in nothing.err
    maskloop("masks", "import", pictures / "truth.json", "--home", boxes)
    figures = maskloop("models", "evaluate", "small", "--home", boxes, "--json").json
    assert figures["masks"] == 6 and 1 <= figures["clicks_per_mask"] <= 20
    assert maskloop("models", "promote", "small", "--home", boxes).code == 0
    missing = maskloop("models", "promote", "v9", "--home", boxes)
    assert missing.code == 1 and "there are: small" in missing.err


def test_report_tells_images_and_a_row_per_version(boxes: Path, maskloop: Maskloop) -> None:
    found = maskloop("report", "--home", boxes, "--json").json
    assert (found["images"]["total"], found["by_model_version"][0]["model_version"]) == (6, "small")
    printed = maskloop("report", "--home", boxes).out
    assert "6 total" in printed and "small" in printed and "held-out" in printed


def test_people_are_added_and_given_links_but_no_default_password(home: Path, maskloop: Maskloop) -> None:
    added = maskloop("users", "add", "ann", "--home", home, "--json").json
    assert (added["role"], added["password"]) == ("annotator", False)
    link = maskloop("users", "link", "ann", "--home", home).out
    assert link.startswith("http://127.0.0.1:8765/sign-in#token=")
    assert maskloop("users", "role", "ann", "reviewer", "--home", home).code == 0
    listed = maskloop("users", "list", "--home", home, "--json").json
    assert [(user["name"], user["role"]) for user in listed] == [("ann", "reviewer")]
    twice = maskloop("users", "add", "ann", "--home", home)
    assert twice.code == 1 and "already a user named 'ann'" in twice.err


def test_a_short_password_is_refused(home: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engine", "users", "add", "bea", "--password", "--home", str(home)]
    ended = subprocess.run(command, input="short\n", capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert ended.stderr == "maskloop: a password has 12 to 1024 characters: choose another\n"


def test_simulate_prints_one_json_object_per_version(boxes: Path, maskloop: Maskloop, pictures: Path) -> None:
    ended = maskloop(
        "simulate", "--truth", pictures / "truth.json", "--rounds", 0, "--images-per-round", 2,
        "--masks-per-image", 1, "--max-clicks", 2, "--eval-masks", 4, "--home", boxes, "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    (row,) = [json.loads(line) for line in io.StringIO(ended.out)]
    assert (row["model_version"], row["eval_masks"]) == ("small", 4)
    assert {"clicks_per_mask", "miou_1_click", "miou_3_clicks", "masks", "state"} <= set(row)
    again = maskloop("simulate", "--truth", pictures / "truth.json", "--home", boxes)
    assert again.code == 1 and "was annotated already" in again.err


def test_held_out_pictures_are_imported_first_and_once(pictures: Path) -> None:
    paths = held_out_first(pictures, pictures / "truth.json")
    assert paths == [pictures / "boxes-4.png", pictures / "boxes-5.png", pictures]
