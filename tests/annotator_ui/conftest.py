"""A furnished home for the web app: three pictures, a small untrained model with its ONNX decoder, people.

Only the weights are not worth anything; database, files, decoder and accounts are the real ones.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apiflask import APIFlask
from PIL import Image as Picture
from PIL import ImageDraw

from annotator_ui.app import create_app
from engine.config import load_settings
from engine.pipeline import accounts
from engine.pipeline.adopt import adopt_weights
from engine.pipeline.embed import embed
from engine.pipeline.ingest import import_images
from engine.store.datasets import dataset_named
from engine.store.runner import Work, commit
from engine.store.session import Workspace, open_workspace, upgrade

PASSWORD = "a long enough password"
PEOPLE = {"ann": "annotator", "bea": "annotator", "rev": "reviewer", "res": "researcher", "adm": "admin"}


class Browser:
    """A test client that keeps the cookie and sends the CSRF token, as the page does."""

    def __init__(self, app: APIFlask) -> None:
        self.client = app.test_client()
        self.csrf_token = ""

    def sign_in(self, name: str) -> "Browser":
        reply = self.post("sign-in", name=name, password=PASSWORD)
        assert reply.status_code == 200, reply.text
        self.csrf_token = reply.json["csrf_token"]
        return self

    def post(self, path: str, **body: Any) -> Any:
        return self.send(path, json=body)

    def send(self, path: str, **request: Any) -> Any:
        headers = {"X-CSRF-Token": self.csrf_token} | request.pop("headers", {})
        return self.client.post(address(path), headers=headers, **request)

    def get(self, path: str, **request: Any) -> Any:
        return self.client.get(address(path), **request)

    def image(self) -> dict[str, Any]:
        """The person's assignment in the dataset."""
        reply = self.post("datasets/cells/assignments")
        assert reply.status_code == 200 and reply.json["assignment"], reply.text
        return reply.json["assignment"]


def address(path: str) -> str:
    return path if path.startswith("/") else f"/api/v1/{path}"


@pytest.fixture(scope="session")
def furnish(
    small_model: tuple[bytes, bytes], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Workspace], None]:
    """Fills a workspace: dataset `cells` with its stage open, three embedded pictures, five people."""
    pictures = tmp_path_factory.mktemp("pictures")
    for n in range(3):
        picture = Picture.new("RGB", (96, 64), (40, 60, 20 + 70 * n))
        ImageDraw.Draw(picture).ellipse((10 + 8 * n, 10, 50 + 8 * n, 50), (230, 200 - 60 * n, 40))
        picture.save(pictures / f"cells-{n}.png")

    def fill(workspace: Workspace) -> None:
        import_images(workspace, "cells", [pictures])
        with workspace.write() as session:
            dataset = dataset_named(session, "cells")
            dataset.open_stage = "assisted_manual"
            for name, role in PEOPLE.items():
                accounts.add_user(session, name, role, PASSWORD)
            accounts.add_user(session, "robot", "simulated")
        version_id = adopt_weights(workspace, dataset.id, "small", *small_model)
        for image_id in (1, 2, 3):
            commit(workspace, embed(Work.inline(workspace), image_id=image_id, model_version_id=version_id))

    return fill


@pytest.fixture(scope="session")
def furnished_home(furnish: Callable[[Workspace], None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite home, filled once; tests work on copies."""
    home = tmp_path_factory.mktemp("furnished") / "home"
    settings = load_settings(home)
    upgrade(settings)
    workspace = open_workspace(settings)
    furnish(workspace)
    workspace.close()
    return home


@pytest.fixture
def home(furnished_home: Path, tmp_path: Path) -> Path:
    return shutil.copytree(furnished_home, tmp_path / "home")


@pytest.fixture
def furnished(home: Path) -> Iterator[Workspace]:
    """The workspace of a copy of the furnished home."""
    workspace = open_workspace(load_settings(home))
    yield workspace
    workspace.close()


@pytest.fixture
def app(furnished: Workspace) -> APIFlask:
    return create_app(furnished)


@pytest.fixture
def browser(app: APIFlask) -> Callable[..., Browser]:
    """Opens a browser: `browser()` is a stranger's, `browser("ann")` has signed in."""
    return lambda name=None: Browser(app).sign_in(name) if name else Browser(app)


@pytest.fixture(scope="session")
def browser_of() -> Callable[..., Browser]:
    """Opens a browser on an app that the test made itself."""
    return lambda app, name: Browser(app).sign_in(name)


@pytest.fixture
def ann(browser: Callable[..., Browser]) -> Browser:
    return browser("ann")
