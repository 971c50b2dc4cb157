"""The walls of the house: who may import whom, how long things get, and what an import may set off."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("engine", "annotator_ui", "workers", "migrations")
ENGINE_PARTS = "errors config logs geometry modeling training synthetic store formats pipeline simulation cli"
ENGINE = frozenset(f"engine.{part}" for part in ENGINE_PARTS.split())
NUMBERS = frozenset({"torch", "numpy", "scipy", "safetensors"})
WEB = frozenset({"flask", "apiflask", "pydantic", "flask_limiter", "werkzeug", "prometheus_client"})
WORDLESS = {"utils", "util", "helpers", "helper", "manager", "data", "item", "result", "misc", "common"}


@dataclass(frozen=True)
class Wall:
    """What one package may import beside the standard library and itself."""

    ours: frozenset[str]
    theirs: frozenset[str]


def wall(ours: str, theirs: frozenset[str] | str = "") -> Wall:
    names = frozenset(theirs.split()) if isinstance(theirs, str) else theirs
    return Wall(frozenset(ours.split()), names)


SEEN_BY_ARROWS = ENGINE - {"engine.cli", "engine.simulation"}

# The longest matching prefix of a module's name decides; a single file's extra right is a line of its own.
WALLS = {
    "engine": wall(""),
    "engine.__main__": wall("engine.cli"),
    "engine.errors": wall(""),
    "engine.config": wall("engine.errors", "pydantic pydantic_settings"),
    # every process that runs says what it does, and the ledger's runner names the job;
    "engine.logs": wall("engine.config"),
    "engine.geometry": wall("engine.errors", "numpy scipy.ndimage pycocotools"),
    "engine.modeling": wall("engine.geometry engine.errors", NUMBERS),
    "engine.modeling.onnx": wall("engine.geometry engine.errors", NUMBERS | {"onnx"}),
    "engine.modeling.onnx_predictor": wall("engine.geometry engine.errors", NUMBERS | {"onnxruntime"}),
    "engine.modeling.adapters": wall("engine.geometry engine.errors", NUMBERS | {"transformers"}),
    "engine.training": wall("engine.geometry engine.errors engine.modeling", NUMBERS),
    "engine.synthetic": wall("engine.geometry engine.errors", NUMBERS),
    "engine.store": wall("engine.config engine.errors engine.logs", "sqlalchemy fsspec"),
    "engine.formats": wall("engine.geometry engine.errors", "numpy orjson pyarrow PIL"),
    "engine.pipeline": Wall(SEEN_BY_ARROWS, frozenset({"sqlalchemy", "numpy"})),
    "engine.simulation": wall("engine.pipeline engine.geometry engine.errors", "numpy"),
    # sqlalchemy for the type of the session that every arrow is handed; nothing is asked of it there.
    "engine.cli": Wall(ENGINE, frozenset({"typer", "rich", "sqlalchemy"})),
    "annotator_ui": wall("engine.pipeline engine.config engine.errors engine.logs", WEB),
    "annotator_ui.app": wall("engine.pipeline engine.config engine.errors engine.store.session", WEB),
    "annotator_ui.__main__": wall("engine.config engine.errors engine.logs", WEB | {"waitress"}),
    "workers": wall("engine.pipeline engine.config engine.errors engine.logs", "celery redis"),
    "workers.job_task": wall(
        "engine.pipeline engine.config engine.errors engine.store.session engine.store.jobs"
        # the runner is the ledger's other half: it claims, beats and ends the job that a message names
        " engine.store.runner",
        "celery redis",
    ),
    "workers.tick": wall(
        "engine.pipeline engine.config engine.errors engine.store.session engine.store.jobs", "celery redis"
    ),
    "migrations": wall("engine.store engine.config", "alembic sqlalchemy"),
    # Rights the design's table does not name, each for one file and for one reason:
    # the schema's revision is compared and raised where the session is opened;
    "engine.store.session": wall("engine.config engine.errors", "sqlalchemy fsspec alembic"),
    # the web app and the command both verify passwords, so the hash lives with the accounts;
    "engine.pipeline.accounts": Wall(SEEN_BY_ARROWS, frozenset({"sqlalchemy", "argon2"})),
    # a simulated annotator is handed the workspace, as the page is;
    "engine.simulation.annotators": wall(
        "engine.pipeline engine.geometry engine.errors engine.store.session", "numpy"
    ),
    "engine.simulation.campaign": wall(
        "engine.pipeline engine.geometry engine.errors engine.store.session", "numpy"
    ),
    # a tracking server is somebody's own choice; TensorBoard comes with torch;
    "engine.training.sinks": wall("engine.errors engine.training", NUMBERS | {"mlflow"}),
    "engine.training.grabcut": wall("engine.geometry engine.training", NUMBERS | {"cv2"}),
    # an evaluation is drawn by an extra that the rest of the command does without;
    "engine.cli.evaluation_plot": Wall(ENGINE, frozenset({"matplotlib"})),
    # the bundled model is trained on generated scenes.
    "engine.training.dataset": wall(
        "engine.geometry engine.errors engine.modeling engine.synthetic", NUMBERS
    ),
}


def sources(*packages: str) -> list[Path]:
    return sorted(
        path
        for package in packages or PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if "node_modules" not in path.parts
    )


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported anywhere in the file; `from a import b` counts as a.b."""
    package = module_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def longest(name: str, prefixes: object) -> str:
    return max((prefix for prefix in prefixes if within(name, prefix)), key=len)  # type: ignore[attr-defined]


def package_of(module: str) -> str:
    """The package a module is at home in: engine.store for engine.store.images, workers for workers.tick."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "engine" and len(parts) > 1 else parts[0]


def crosses(module: str, target: str) -> bool:
    rule = WALLS[longest(module, WALLS)]
    if target.split(".")[0] in sys.stdlib_module_names or target.startswith("__future__"):
        return False
    if target.split(".")[0] in PACKAGES:
        at_home = package_of(module) != "engine" and within(target, package_of(module))
        return not at_home and not any(within(target, ours) for ours in rule.ours)
    return not any(within(target, theirs) for theirs in rule.theirs)


def test_every_module_of_engine_stands_behind_a_declared_wall() -> None:
    homes = {package_of(module_of(path)) for path in sources("engine")} - {"engine.bundled"}
    assert homes <= set(WALLS), f"add a line to WALLS for {sorted(homes - set(WALLS))}"


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_inward(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {target}"
        for path in sources(package)
        for line, target in imports(path)
        if crosses(module_of(path), target)
    ]
    assert not found, "\n".join(found)


def test_arrows_never_import_each_other_and_stages_are_for_those_who_hand_out_work() -> None:
    # stages is no arrow but their settings: assign hands out images by its order and share, report tells it.
    allowed = {
        (f"engine.pipeline.{name}", "engine.pipeline.stages")
        for name in ("loop_images", "loop_round", "loop_stages", "loop_switch", "assign", "report")
    }
    # An embedding that is stored or made is no arrow either, but what two of them begin with.
    allowed |= {
        (f"engine.pipeline.{name}", "engine.pipeline.embedded") for name in ("propose", "train_detector")
    }
    # The loop's own files are one thing in parts.
    parts = ("ask", "images", "round", "schedule", "stages", "switch")
    names = ("loop", "schedule", *(f"loop_{part}" for part in parts))
    allowed |= {(f"engine.pipeline.{a}", f"engine.pipeline.{b}") for a in names for b in names}
    found = []
    for path in sources("engine/pipeline"):
        for line, target in imports(path):
            other = ".".join(target.split(".")[:3])
            if within(other, "engine.pipeline") and (module_of(path), other) not in allowed:
                found.append(f"{path.relative_to(ROOT)}:{line} imports {target}")
    assert not found, "\n".join(found)


def test_wall_rejects_what_it_should() -> None:
    assert crosses("engine.geometry.rle", "torch")
    assert crosses("engine.geometry.rle", "scipy.optimize.linear_sum_assignment")
    assert crosses("engine.store.images", "engine.pipeline.ingest")
    assert crosses("annotator_ui.api.images", "engine.store.session")
    assert crosses("engine.simulation.clicks", "engine.store.masks")
    assert not crosses("annotator_ui.app", "engine.store.session.open_session")
    assert not crosses("engine.geometry.rle", "engine.geometry.boxes")


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from its first statement after the docstring."""
    first = node.body[0]
    start = first.end_lineno + 1 if ast.get_docstring(node) and first.end_lineno else first.lineno
    return (node.end_lineno or start) - start + 1


def test_no_function_is_longer_than_sixty_lines() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {body_lines(node)}"
        for path in [*sources(), *sources("tests"), ROOT / "hatch_build.py"]
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and body_lines(node) > 60
    ]
    assert not found, "\n".join(found)


def test_no_file_has_more_than_four_hundred_lines_of_code() -> None:
    page = (ROOT / "annotator_ui" / "web" / "src").rglob("*.ts*")
    found = []
    for path in [*sources(), *sources("tests"), *page]:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
        n_code = sum(1 for line in lines if line and not line.startswith(("#", "//", "*", "/*")))
        if n_code > 400:
            found.append(f"{path.relative_to(ROOT)} has {n_code}")
    assert not found, "\n".join(found)


def named(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of every variable, argument, function and class that the file itself names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def test_names_say_what_they_hold() -> None:
    modules = [
        str(path.relative_to(ROOT)) for path in [*sources(), *sources("tests")] if path.stem in WORDLESS
    ]
    variables = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in sources()
        for line, name in named(parsed(path))
        if name in WORDLESS
    ]
    assert not modules + variables, "\n".join(modules + variables)


def test_nothing_is_stubbed_silenced_or_mocked() -> None:
    signs = {
        "mock library": r"unittest\.mock|monkeypatch\.setattr",
        "unfinished": r"\b(TODO|FIXME|XXX|NotImplementedError)\b",
        "silenced": r"except( Exception)?:\s*(#.*)?\n\s*pass\b",
        "bare ignore": r"# type: ignore(?!\[)|# noqa(?!: )",
    }
    found = [
        f"{path.relative_to(ROOT)}: {what}"
        for path in [*sources(), *sources("tests"), ROOT / "hatch_build.py"]
        if path != Path(__file__).resolve()
        for what, sign in signs.items()
        if re.search(sign, path.read_text("utf-8"))
    ]
    assert not found, "\n".join(found)


def test_every_signature_is_annotated() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sources()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.returns is None
        or any(not a.annotation for a in node.args.args if a.arg not in ("self", "cls"))
    ]
    assert not found, "\n".join(found)


def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_web_app_leaves_torch_out() -> None:
    done = python("import sys, annotator_ui.app; sys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr or "annotator_ui.app imports torch"


def test_the_command_answers_help_without_torch() -> None:
    program = """
import sys
from engine.cli import main
sys.argv = ["maskloop", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {"torch", "onnxruntime", "sqlalchemy"} & set(sys.modules)
sys.exit(f"--help imports {sorted(heavy)}" if "torch" in heavy else 0)
"""
    done = python(program)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


OPENING = """
import importlib, os, sys, threading
root, modules = os.getcwd(), sys.argv[1:]
watched = {"open", "socket.bind", "socket.connect", "subprocess.Popen", "sqlite3.connect", "os.mkdir"}
seen = []

def blame(frame):
    while frame is not None and "importlib" in frame.f_code.co_filename:
        frame = frame.f_back
    name = frame.f_code.co_filename if frame else ""
    ours = name.startswith(root) and "site-packages" not in name
    return f"{os.path.relpath(name, root)}:{frame.f_lineno}" if ours else None

def hook(event, arguments):
    if event in watched:
        place = blame(sys._getframe(1))
        # An import statement itself reads source and byte code; a module's own acts do more.
        if place and not (event == "open" and str(arguments[0]).endswith((".py", ".pyc"))):
            seen.append(f"{place} {event} {arguments[:1]}")

n_threads = threading.active_count()
sys.addaudithook(hook)
for module in modules:
    importlib.import_module(module)
assert threading.active_count() == n_threads, threading.enumerate()
sys.exit("\\n".join(seen) or 0)
"""


def test_importing_any_module_opens_nothing() -> None:
    skipped = ("__main__",)
    modules = [
        module_of(path)
        for path in sources("engine", "annotator_ui", "workers")
        if path.stem not in skipped and "adapters" not in path.parts
    ]
    done = python(OPENING, *modules)
    assert done.returncode == 0, done.stderr
