"""The data's way has one direction, inference needs no torch, and what is imported is declared."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import anyecg

SRC = Path(__file__).resolve().parents[1] / "src"
PACKAGE = SRC / "anyecg"
FILES = sorted(PACKAGE.rglob("*.py"))
LIBRARIES_OF_TORCH = {"torch", "safetensors", "onnx", "onnxscript", "torchao", "vector_quantize_pytorch"}
# What the abbreviations and names of data sets look like in code. "MIT-BIH" is left out: it also names a way of
# labelling beats.
DATASET = re.compile(
    r"ptb[-_ ]?xl|mitdb|nstdb|afpdb|ltaf|ltdb|nsrdb|ludb|ecgiddb|code[-_]?15|cinc[-_ ]?20\d\d|chapman|ningbo|cpsc",
    re.IGNORECASE,
)


def order() -> list[str]:
    """Return the modules in the order that the package docstring gives."""
    block = (anyecg.__doc__ or "").split("stands before it:")[1].split("\n\n")[1]
    return [name.strip() for name in block.replace("\n", " ").split(",") if name.strip()]


def top(path: Path) -> str:
    """Return the module or package directly under anyecg that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str, str | None]]:
    """Yield line, module and name of each import of a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from ((node.lineno, node.module or "", alias.name) for alias in node.names)


def imported_part(module: str, name: str | None) -> str | None:
    """Return the part of anyecg that an import reaches: "" for the package itself, None for another library."""
    parts = module.split(".")
    if parts[0] != "anyecg":
        return None
    if len(parts) > 1:
        return parts[1]
    return name if name in order() else ""


def test_the_order_names_every_module() -> None:
    found = {top(path) for path in FILES} - {"__init__", "__main__"}
    assert found <= set(order()), "a module is missing from the order in anyecg/__init__.py"
    assert len(order()) == len(set(order()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_only_what_stands_before_it(path: Path) -> None:
    here = top(path)
    if here in ("__init__", "__main__"):
        return
    allowed = {*order()[: order().index(here)], here}
    for line, module, name in imports(path):
        part = imported_part(module, name)
        if part == "":  # the package itself: for its version, or, at the end of the way, for the public API
            assert name == "__version__" or here == "demo", f"{path}:{line}: import from the module that defines it"
        elif part is not None:
            assert part in allowed, f"{path}:{line}: {here} stands before {part}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_torch_lives_only_under_models_and_training(path: Path) -> None:
    if top(path) in ("models", "training"):
        return
    found = {module.split(".")[0] for _, module, _ in imports(path)} & LIBRARIES_OF_TORCH
    assert not found, f"{path} imports {found}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_data_sets_are_named_only_in_training_datasets(path: Path) -> None:
    if path == PACKAGE / "training" / "datasets.py":
        return
    tree = ast.parse(path.read_text())
    docstrings = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        text = None
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            text = node.value
        elif isinstance(node, ast.Name):
            text = node.id
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            text = node.name
        if text:
            assert not DATASET.search(text), f"{path}:{node.lineno}: {text!r}"


@pytest.mark.parametrize(("name", "hit"), [("PTB-XL", True), ("ltafdb", True), ("ltdb", True), ("lead", False)])
def test_the_pattern_knows_data_sets(name: str, hit: bool) -> None:
    assert bool(DATASET.search(name)) is hit


def declared() -> tuple[set[str], set[str]]:
    """Return the distributions that pyproject.toml declares: of the core, and of the extras for training."""
    project = tomllib.loads((SRC.parent / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[^\w.-]", text)[0].lower().replace("_", "-") for text in requirements}

    return names(project["dependencies"]), names(project["optional-dependencies"]["train"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_each_imported_library_is_declared(path: Path) -> None:
    core, train = declared()
    allowed = core | train if top(path) in ("models", "training") else core
    providers = packages_distributions()
    for line, module, _ in imports(path):
        library = module.split(".")[0]
        if library == "anyecg" or library in sys.stdlib_module_names:
            continue
        distributions = {name.lower().replace("_", "-") for name in providers.get(library, [library])}
        assert distributions & allowed, f"{path}:{line}: {library} is not declared in pyproject.toml"


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_is_instant_and_light() -> None:
    code = "import sys, anyecg; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = set(run_python(code).split())
    assert not loaded & {"torch", "numpy", "scipy", "onnxruntime", "typer", "matplotlib"}


def test_inference_imports_no_torch(dicom_file: Path) -> None:
    code = """
import sys
import anyecg
from anyecg.engine import load
for name in "read prepare Record Annotation load list_models Tokens analyze Result write_report AnyECGError".split():
    getattr(anyecg, name)
model = anyecg.load("nano")
record = anyecg.read(sys.argv[1])
anyecg.analyze(record, model).to_dict()
model.decode(model.tokenize(record))
model.embed(record)
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""
    loaded = set(run_python(code, str(dicom_file)).split())
    assert "onnxruntime" in loaded
    assert not loaded & {"torch", "sklearn", "pydantic_settings"}
