"""Fixtures that every package's tests share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def missing(what: str) -> None:
    """Skips with the reason given; in CI nothing may be missing, so there it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} (required when CI=true)")
    pytest.skip(what)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and reference values; see its README. Never committed."""
    folder = Path(os.environ.get("MASKLOOP_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "parity").is_dir():
        missing(f"no shared folder at {folder}: set MASKLOOP_SHARED")
    return folder
