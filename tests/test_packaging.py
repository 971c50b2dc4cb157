"""What is installed and how: pins, the wheel's contents, and the page built with or without a system Node."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def load_hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hook = load_hook()


def plain(requirement: str) -> str:
    """The bare, normalised name of a requirement or a pin."""
    return re.split(r"[\[<>=~;! ]", requirement)[0].lower().replace("_", "-")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    assert all("==" in line for line in lines), "constraints.txt holds exact pins only"
    return {plain(line): line.split("==")[1] for line in lines}


def test_every_dependency_has_an_exact_pin_but_packaging_has_none() -> None:
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
    assert {plain(requirement) for requirement in wanted} <= set(pins())
    assert "packaging" not in pins(), "kombu[redis] pins packaging itself"


def test_installed_torch_of_a_researcher_is_within_range() -> None:
    torch = next(requirement for requirement in PROJECT["dependencies"] if plain(requirement) == "torch")
    assert torch == "torch>=2.6", "no upper bound, no exact pin: the wheel installs beside a CUDA torch"


def test_every_pip_call_takes_the_constraints() -> None:
    for name in ("Makefile", ".ci/run"):
        for line in (ROOT / name).read_text().splitlines():
            assert "pip install" not in line or "-c " in line, line


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built without the page from a copy of what git tracks or would track."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=tree,
        env=os.environ | {"MASKLOOP_SKIP_PAGE": "1"},
        check=True,
        capture_output=True,
    )
    return zipfile.ZipFile(next(out.glob("maskloop-*.whl")))


def test_wheel_carries_configs_migrations_licence_and_command(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert "engine/_configs/default.toml" in names
    shipped = [path.relative_to(ROOT).as_posix() for path in (ROOT / "migrations" / "versions").glob("*.py")]
    assert {f"engine/_{name}" for name in shipped} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    assert "maskloop = engine.cli:main" in wheel.read(entry).decode()


def test_wheel_leaves_page_sources_and_tests_out(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops <= {"engine", "annotator_ui", "workers", f"maskloop-{PROJECT['version']}.dist-info"}
    assert not [name for name in wheel.namelist() if name.startswith("annotator_ui/web/")]


def test_settings_load_from_the_wheel_without_the_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    program = "from engine.config import *; print(configs_folder()); print(load_settings().web.port)"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MASKLOOP_")}
    # -P keeps the working folder off the path; the extracted wheel comes before the editable checkout.
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd="/",
        env=clean | {"PYTHONPATH": str(tmp_path), "MASKLOOP_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(tmp_path / "engine" / "_configs"), "8765"], done.stderr


def draw_page(root: Path) -> Path:
    """A small page source tree; returns its web folder."""
    web = root / "annotator_ui" / "web"
    (web / "src").mkdir(parents=True)
    (web / "package.json").write_text('{"name": "page", "version": "1.0.0", "scripts": {"build": "false"}}')
    (web / "src" / "main.ts").write_text("export {}")
    return web


def test_page_is_stale_until_its_sources_match_the_mark(tmp_path: Path) -> None:
    assert not hook.is_stale(tmp_path), "no sources, nothing to build"
    web = draw_page(tmp_path)
    assert hook.is_stale(tmp_path)
    static = tmp_path / "annotator_ui" / "static"
    static.mkdir()
    (static / ".source-hash").write_text(hook.source_hash(web))
    assert not hook.is_stale(tmp_path)
    (web / "test").mkdir()
    (web / "test" / "main.test.ts").write_text("a test changes no page")
    assert not hook.is_stale(tmp_path)
    (web / "src" / "main.ts").write_text("export {};")
    assert hook.is_stale(tmp_path)


def test_skipping_the_page_is_said(tmp_path: Path) -> None:
    draw_page(tmp_path)
    assert "MASKLOOP_SKIP_PAGE" in hook.build_page(tmp_path, {"MASKLOOP_SKIP_PAGE": "1"})
    assert not (tmp_path / "annotator_ui" / "static").exists()


@pytest.mark.parametrize(
    ("version", "fit"),
    [("v18.20.1", False), ("v20.18.0", False), ("v20.19.0", True), ("v21.7.0", False), ("v22.12.0", True)],
)
def test_only_a_node_that_vite_takes_counts(tmp_path: Path, version: str, fit: bool) -> None:
    for name in ("node", "npm"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {version}\n")
        (tmp_path / name).chmod(0o755)
    path = os.environ["PATH"]
    os.environ["PATH"] = str(tmp_path)
    try:
        assert hook.has_system_node() is fit
    finally:
        os.environ["PATH"] = path


def test_unreachable_registry_is_one_sentence_that_names_the_way_out(tmp_path: Path) -> None:
    if not hook.has_system_node():
        pytest.skip("no system Node")
    web = draw_page(tmp_path)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(ROOT / "annotator_ui" / "web" / name, web / name)
    # Port 9 of the own machine answers nobody; an empty cache leaves npm nothing to fall back on.
    offline = {"registry": "http://127.0.0.1:9", "fetch_retries": "0", "cache": str(tmp_path / "cache")}
    os.environ |= {f"npm_config_{key}": value for key, value in offline.items()}
    try:
        with pytest.raises(hook.PageError) as refusal:
            hook.build_page(tmp_path, {})
    finally:
        for key in offline:
            del os.environ[f"npm_config_{key}"]
    assert "MASKLOOP_SKIP_PAGE=1" in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.slow
def test_page_builds_from_source_with_the_wheels_node(tmp_path: Path) -> None:
    """A PATH without Node, and nothing but the wheel that the hook asks for."""
    shutil.copytree(
        ROOT, tmp_path / "tree", ignore=lambda _, names: {".venv", ".git", "node_modules", "static"}
    )
    links = tmp_path / "bin"
    links.mkdir()
    for name in ("sh", "env", "git"):
        (links / name).symlink_to(shutil.which(name) or name)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(tmp_path / "out"), "./tree"],
        cwd=tmp_path,
        env=os.environ | {"PATH": str(links)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    names = zipfile.ZipFile(next((tmp_path / "out").glob("*.whl"))).namelist()
    assert "annotator_ui/static/index.html" in names
