"""The house rules of CONTRIBUTING.md as numbers, read from the syntax tree."""

import ast
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = sorted((ROOT / "dreamwalk").rglob("*.py"))
ALL = PACKAGE + [
    p for part in ("tests", "examples", "benchmarks") for p in sorted((ROOT / part).rglob("*.py"))
]
NAMELESS = {"utils", "util", "common", "misc", "helpers", "tools", "base", "core"}
OPEN_KEYWORDS = {"make", "action", "add"}
"""`dreamwalk.make` passes gymnasium's own options on; `ActionSchema.action` takes the axes by name, and
the writer of maps takes the fields of Doom's text format."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function):
            yield node


def length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def test_files_are_short() -> None:
    """400 lines at most."""
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in ALL}
    assert not {name: n for name, n in lengths.items() if n > 400}


def test_lines_are_short() -> None:
    long = [
        f"{name_of(p)}:{i}" for p in ALL for i, s in enumerate(p.read_text().split("\n"), 1) if len(s) > 110
    ]
    assert not long


def test_functions_are_short() -> None:
    """60 lines at most; nine in ten have 35 or fewer."""
    lengths = {f"{name_of(p)}:{f.lineno} {f.name}": length(f) for p in ALL for f in functions(p)}
    assert not {name: n for name, n in lengths.items() if n > 60}
    assert sorted(lengths.values())[int(0.9 * len(lengths))] <= 35


def test_every_argument_is_annotated() -> None:
    bare = []
    for path in PACKAGE:
        for function in functions(path):
            a = function.args
            arguments = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
            known = {"self", "cls"}
            bare += [
                f"{path.name} {function.name}({x.arg})"
                for x in arguments
                if not (x.annotation or x.arg in known)
            ]
            bare += [f"{path.name} {function.name} returns"] if function.returns is None else []
    assert not bare


def test_modules_classes_and_functions_say_what_they_are() -> None:
    """Every module, every public class and every public function of a module has a docstring."""
    silent = []
    for path in PACKAGE:
        module = ast.parse(path.read_text())
        public = [x for x in ast.walk(module) if isinstance(x, ast.ClassDef)]
        public += [x for x in module.body if isinstance(x, Function)]
        silent += [name_of(path)] if not ast.get_docstring(module) else []
        silent += [
            f"{name_of(path)} {x.name}"
            for x in public
            if not x.name.startswith("_") and not ast.get_docstring(x)
        ]
    assert not silent


def test_no_module_is_a_drawer_for_everything() -> None:
    assert not [name_of(path) for path in PACKAGE if {path.stem, path.parent.name} & NAMELESS]


SIZES = {"tiny", "doom", "rooms", "game", "released"}
"""Names of sizes: functions that return a config, which every part and system may have."""


def test_a_public_name_means_one_thing() -> None:
    """A public class or function is defined in one module."""
    defined: dict[str, set[str]] = {}
    for path in PACKAGE:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
                defined.setdefault(node.name, set()).add(name_of(path))
    assert not {name: paths for name, paths in defined.items() if len(paths) > 1 and name not in SIZES}


def test_code_is_formatted() -> None:
    """Formatted by ruff, but for a few tables."""
    assert sum(path.read_text().count("# fmt: skip") for path in PACKAGE) <= 10


def test_systems_requests_and_sessions_have_types() -> None:
    """No argument called so is `Any`."""
    spine = ("system", "request", "session")
    untyped = [
        f"{name_of(path)}:{f.lineno} {f.name}({a.arg})"
        for path in PACKAGE
        for f in functions(path)
        for a in [*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs]
        if a.arg in spine and a.annotation and "Any" in ast.unparse(a.annotation)
    ]
    assert not untyped


def test_the_design_names_every_module() -> None:
    """docs/design.md says of every module where it stands."""
    text = (ROOT / "docs" / "design.md").read_text()
    layout = text[text.index("## Layout") : text.index("## Contracts")]
    words = set(re.findall(r"\w+", layout))
    modules = {path.stem if path.stem != "__init__" else path.parent.name for path in PACKAGE}
    assert not modules - words - {"dreamwalk"}
    assert "rollout" in words and len(list((ROOT / "dreamwalk" / "rollout").glob("*.py"))) <= 9


def test_options_are_named() -> None:
    """No `**kwargs`, apart from the three functions whose keywords are data."""
    found = {f.name for path in PACKAGE for f in functions(path) if f.args.kwarg}
    assert found <= OPEN_KEYWORDS


def test_weights_are_never_pickles() -> None:
    """No pickle, no `torch.load`, no `torch.save`: a weight file that is opened cannot run code.

    One module opens what others published as pickles, when asked to, and takes tensors alone.
    """
    found, only = [], ROOT / "dreamwalk" / "published" / "pickles.py"
    calls = [node for node in ast.walk(ast.parse(only.read_text())) if isinstance(node, ast.Call)]
    (load,) = [call for call in calls if ast.unparse(call.func) == "torch.load"]
    assert "weights_only=True" in [ast.unparse(keyword) for keyword in load.keywords]
    for path in PACKAGE:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {m.split(".")[0] for m in modules} & {"pickle", "dill", "cloudpickle", "joblib"}:
                found.append(f"{name_of(path)}:{node.lineno}")  # type: ignore[attr-defined]
            forbidden = ("torch.save",) if path == only else ("torch.load", "torch.save")
            if isinstance(node, ast.Attribute) and ast.unparse(node) in forbidden:
                found.append(f"{name_of(path)}:{node.lineno}")
    assert not found


def test_sentences_for_people_are_user_errors() -> None:
    """No plain ValueError is raised: a sentence is a `UserError`, and everything else is a fault."""
    raised = [
        f"{name_of(path)}:{node.lineno}"
        for path in PACKAGE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise) and node.exc and ast.unparse(node.exc).startswith("ValueError")
    ]
    assert not raised


@pytest.mark.parametrize("module", ["dreamwalk", "dreamwalk.serve", "dreamwalk.world", "dreamwalk.cli"])
def test_no_torch_where_none_is_needed(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def test_help_comes_at_once() -> None:
    """Under a second, by the median of three; two are allowed here, for machines that do other things too."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "dreamwalk", "--help"], cwd=ROOT, check=True, capture_output=True
        )
        seconds.append(time.perf_counter() - began)
    assert sorted(seconds)[1] < 2
