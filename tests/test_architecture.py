"""Who may import what: the layers that CONTRIBUTING.md describes."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
MODULES = sorted(
    path.relative_to(ROOT)
    for folder in ("beam_jobs", "transforms")
    for path in ROOT.glob(f"{folder}/**/*.py")
)
NOUNS = ("formats", "models", "metrics", "sinks")
# Verb files are Beam stages; the others at the top of transforms/ are nouns too.
TOP_NOUNS = {
    "arrow",
    "batch",
    "compare",
    "conversions",
    "errors",
    "finish",
    "identity",
    "labels",
    "ledger",
    "memo",
    "meter",
    "slices",
}
RUNTIMES = ("tensorflow", "keras", "ai_edge_litert", "onnxruntime", "onnx")
TFMA_ADAPTER = {"transforms/metrics/tfma.py", "transforms/evaluate_with_tfma.py"}
# Beam's filesystems open remote files; nothing else of Beam is wanted there.
FILESYSTEMS = "apache_beam.io.filesystem"
MENDS_BEAM = "transforms/formats/s3.py"


def imports(module):
    """(imported module, whether at the top level) of a file."""
    tree = ast.parse((ROOT / module).read_text())
    top = set(tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node in top
            yield from ((f"{node.module}.{alias.name}", node in top) for alias in node.names)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_layers(module):
    parts = module.parts
    for name, at_top in imports(module):
        package = name.partition(".")[0]
        if package == "tensorflow_model_analysis":
            assert module.as_posix() in TFMA_ADAPTER, f"{module} imports TFMA"
            lazy = module.name == "evaluate_with_tfma.py" or not at_top
            assert lazy, f"{module} imports TFMA before it is needed"
        if name == "transforms.evaluate_with_tfma":
            assert not at_top, f"{module} imports TFMA before it is needed"
        if package in RUNTIMES:
            allowed = parts[:2] == ("transforms", "models") or module.name.startswith("demo")
            assert allowed or module.as_posix() in TFMA_ADAPTER, f"{module} imports {package}"
        noun = parts[0] == "transforms" and (parts[1] in NOUNS or module.stem in TOP_NOUNS)
        if package == "apache_beam" and noun and module.as_posix() not in TFMA_ADAPTER:
            allowed = name == "apache_beam.io" or name.startswith(FILESYSTEMS)
            assert allowed or module.as_posix() == MENDS_BEAM, (
                f"{module} is a noun and imports {name}"
            )
        if parts[0] == "transforms":
            assert package != "beam_jobs", f"{module} imports the jobs that are made of it"


def test_registries_name_modules_that_exist():
    from transforms import formats, models

    for registry in (formats.REGISTRY, models.REGISTRY):
        for name in registry.values():
            module = ROOT / name.replace(".", "/")
            assert module.with_suffix(".py").exists() or (module / "__init__.py").exists(), name


HEAVY = (*RUNTIMES, "tensorflow_model_analysis", "apache_beam", "pandas", "pyarrow")


def _loaded(code):
    """Which of the heavy packages a fresh interpreter has loaded after running the code."""
    check = f"import sys; print([m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\n{check}"], capture_output=True, text=True, check=True
    )
    return ast.literal_eval(result.stdout.splitlines()[-1])


def test_help_loads_nothing_heavy():
    assert _loaded("import beam_jobs.cli") == []


def test_a_config_is_checked_without_beam_or_tensorflow():
    assert "apache_beam" not in _loaded("import beam_jobs.config")


def test_a_job_loads_tensorflow_for_models_of_tensorflow_only():
    assert set(_loaded("import beam_jobs.run")) <= {"apache_beam", "pandas", "pyarrow"}
