"""Rules of this repository that ruff and mypy do not know: floors of rooms, sizes, names, the sealed test part.

See CONTRIBUTING.md.

Usage: python scripts/lint.py [REPOSITORY]. One line per problem, `file:line: what, and what to do`; exit code 1 if any.
"""

from __future__ import annotations

import ast
import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

PACKAGE = "reglaj"
# A room imports itself and lower floors only. "(facade)" is the package's own __init__, "(main)" its __main__.
FLOORS = {
    "core": 0,
    "data": 1, "models": 1,
    "methods": 2, "objectives": 2, "curation": 2,
    "generation": 3,
    "evaluation": 4, "training": 4,
    "audits": 5, "search": 5, "serving": 5, "monitoring": 5, "tasks": 5,
    "lifecycle": 6,
    "pipelines": 7,
    "(facade)": 8,
    "cli": 9, "studio": 9,
    "(main)": 10,
}  # fmt: skip
_TEST_FILE = re.compile(r"\btest\.parquet|\*\.parquet")
FOLDERS = ("src", "tests", "scripts", "benchmarks")
FILE_LINES = 400
FUNCTION_LINES = 60
# The test part is opened for a final evaluation and for checks of one, and nowhere else: what chooses (search,
# comparison, early stopping, curation) gets `VisibleData`. A name stands for the modules below it too.
OPENS_TEST = ("reglaj.data.examples", "reglaj.pipelines.train", "reglaj.pipelines.evaluate", "reglaj.pipelines.verify")
# Files of parts by a name that is put together: it may be that of the test part.
NAMES_PARTS = (
    "reglaj.data.examples", "reglaj.data.writing", "reglaj.pipelines.verify",
    "reglaj.pipelines.provenance",  # says whether a text that the user gives is in the test part, and shows none of it
)  # fmt: skip
HOLDS_ALL = (
    "reglaj.data.examples", "reglaj.data.prepare",
    "reglaj.pipelines.train", "reglaj.pipelines.evaluate", "reglaj.pipelines.verify",
    "reglaj.pipelines.data",  # prepares them for the others
    "reglaj.pipelines.provenance",
)  # fmt: skip
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


@dataclass(frozen=True)
class Finding:
    """One broken rule at one place."""

    file: Path
    line: int
    text: str


@dataclass(frozen=True)
class Module:
    """A parsed file of the package; `name` is dotted, such as `reglaj.core.errors`."""

    name: str
    file: Path
    tree: ast.Module

    @property
    def room(self) -> str:
        """The folder below the package that the file lies in."""
        if self.name == PACKAGE:
            return "(facade)"
        part = self.name.split(".")[1]
        return "(main)" if part == "__main__" else part


def check(root: Path) -> list[Finding]:
    """Every broken rule below `root`, ordered by file and line."""
    files = [file for folder in FOLDERS for file in sorted((root / folder).rglob("*.py"))]
    modules = list(_package(root / "src"))
    findings = [finding for file in files for finding in _sizes_and_names(file)]
    findings += [finding for module in modules for finding in _floors(module)]
    findings += [finding for module in modules for finding in _sealed(module)]
    findings += _plug_ins(modules)
    return sorted(findings, key=lambda finding: (finding.file, finding.line, finding.text))


def _package(source: Path) -> Iterator[Module]:
    for file in sorted((source / PACKAGE).rglob("*.py")):
        parts = list(file.relative_to(source).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield Module(name=name, file=file, tree=ast.parse(file.read_text(encoding="utf-8"), str(file)))


def _sizes_and_names(file: Path) -> Iterator[Finding]:
    text = file.read_text(encoding="utf-8")
    count = len(text.splitlines())
    if count > FILE_LINES:
        yield Finding(file, 1, f"{count} lines, at most {FILE_LINES}: split the file by what it is about")
    name = file.parent.name if file.name == "__init__.py" else file.stem
    if name in EMPTY_NAMES:
        yield Finding(file, 1, f"the name {name!r} says nothing: name the file after what it holds")
    for node in ast.walk(ast.parse(text, str(file))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                told = f"{node.name} has {length} lines, at most {FUNCTION_LINES}: give its parts names"
                yield Finding(file, node.lineno, told)


def _floors(module: Module) -> Iterator[Finding]:
    room = module.room
    if room not in FLOORS:
        yield Finding(module.file, 1, f"the room {room!r} has no floor: give it one in scripts/lint.py")
        return
    for line, target in imports(module):
        other = _room(target)
        if other != room and FLOORS.get(other, 0) >= FLOORS[room]:
            told = (
                f"{room} (floor {FLOORS[room]}) imports {target} (floor {FLOORS[other]}): only lower floors; hand it in"
            )
            yield Finding(module.file, line, told)


def _room(name: str) -> str:
    """The room of a dotted name. What is no folder of the package comes out of its facade (`reglaj.train`)."""
    parts = name.split(".")
    is_folder = len(parts) > 1 and (parts[1] in FLOORS or len(parts) > 2)
    return parts[1] if is_folder else "(facade)"


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """Every import of ours, wherever it stands: at the top, inside a function, for types only, or by its name as text.

    Yields line and dotted name; `from reglaj.core import errors` gives `reglaj.core.errors`.
    """
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Import | ast.ImportFrom | ast.Call):
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif _called(node) in ("import_module", "__import__"):
            names = [part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        for name in names:
            if name.split(".")[0] == PACKAGE:
                yield node.lineno, name


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    package = parts if module.file.name == "__init__.py" else parts[:-1]
    above = package[: len(package) - node.level + 1]
    return ".".join([*above, node.module] if node.module else above)


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _sealed(module: Module) -> Iterator[Finding]:
    """Ways to the test part in modules that are not meant to have one."""
    if not _is_below(module, HOLDS_ALL):
        for line, target in imports(module):
            if target.rpartition(".")[2] in ("PreparedData", "load_prepared", "_read_part"):
                told = f"imports {target}, from which the test part can be opened: take VisibleData"
                yield Finding(module.file, line, told)
    told_texts = {id(node.value) for node in ast.walk(module.tree) if isinstance(node, ast.Expr)}  # docstrings
    for node in ast.walk(module.tree):
        if _opens_test(node) and not _is_below(module, OPENS_TEST):
            yield Finding(module.file, node.lineno, "opens the sealed test part: only a final evaluation does")
        elif id(node) not in told_texts and _names_test_file(node) and not _is_below(module, NAMES_PARTS):
            told = "names a part's file, which may be that of the sealed test part: read train and validation"
            yield Finding(module.file, node.lineno, f"{told} through VisibleData")


def _is_below(module: Module, names: tuple[str, ...]) -> bool:
    return any(module.name == name or module.name.startswith(f"{name}.") for name in names)


def _opens_test(node: ast.AST) -> TypeGuard[ast.expr]:
    """`data.open_test`, by attribute, by name or by its name as text."""
    if isinstance(node, ast.Attribute):
        return node.attr == "open_test"
    return (isinstance(node, ast.Name) and node.id == "open_test") or (
        isinstance(node, ast.Constant) and node.value == "open_test"
    )


def _names_test_file(node: ast.AST) -> TypeGuard[ast.expr]:
    """`test.parquet`, `*.parquet`, or an f-string that puts something before `.parquet`."""
    if isinstance(node, ast.JoinedStr):
        return any(
            isinstance(before, ast.FormattedValue) and str(getattr(after, "value", "")).startswith(".parquet")
            for before, after in itertools.pairwise(node.values)
        )
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(_TEST_FILE.search(node.value))


def _plug_ins(modules: list[Module]) -> list[Finding]:
    """Imports of a plug-in from inside its own room.

    A plug-in room is a package that a `Registry(kind, package)` names, a plug-in one of its modules that registers
    something. What two plug-ins share belongs in a module that registers nothing, such as base.py.
    """
    rooms = {room for module in modules for room in _registries(module)}
    plug_ins = {
        module.name for module in modules if module.name.rpartition(".")[0] in rooms and _registers(module.tree)
    }
    findings = []
    for module in modules:
        for line, target in imports(module):
            # `from room.plug_in import thing` names the thing as well.
            plug_in = next((name for name in (target, target.rpartition(".")[0]) if name in plug_ins), module.name)
            room = plug_in.rpartition(".")[0]
            if plug_in != module.name and module.name in (room, f"{room}.{module.name.rpartition('.')[2]}"):
                told = f"imports the plug-in {plug_in} from its own room: what is shared belongs in a module of its own"
                findings.append(Finding(module.file, line, told))
    return findings


def _registries(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and _called(node) == "Registry":
            for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                if isinstance(argument, ast.Constant) and str(argument.value).startswith(f"{PACKAGE}."):
                    yield str(argument.value)


def _registers(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.Call) and _called(node) == "register" for node in ast.walk(tree))


def main(arguments: list[str]) -> int:
    """Print what is broken below the given repository, by default this one; the exit code."""
    root = Path(arguments[0]).resolve() if arguments else Path(__file__).resolve().parents[1]
    if not (root / "src" / PACKAGE).is_dir():
        print(f"{root} has no src/{PACKAGE}: nothing to look at", file=sys.stderr)
        return 2
    findings = check(root)
    for finding in findings:
        print(f"{finding.file.relative_to(root)}:{finding.line}: {finding.text}")
    if not findings:
        print("floors, sizes, names and the sealed test part are in order")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
