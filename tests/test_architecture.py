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
RUNTIMES = ("tensorflow", "keras", "ai_edge_litert", "onnxruntime", "onnx")
# TFMA's evaluators are Beam transforms, so what adapts them is one too.
TFMA_EVALUATOR = "transforms/tfma/evaluator.py"
TFMA_CLASSES = "transforms/tfma/metric_classes.py"
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
    parts, path = module.parts, module.as_posix()
    for name, at_top in imports(module):
        package = name.partition(".")[0]
        assert package not in ("beam_jobs", "transforms"), f"{module}: {name} is a name of users'"
        if package == "tensorflow_model_analysis":
            assert path in (TFMA_EVALUATOR, TFMA_CLASSES), f"{module} imports TFMA"
            assert path == TFMA_EVALUATOR or not at_top, f"{module} imports TFMA at once"
        if name == "evalbeam.transforms.tfma.evaluator":
            assert not at_top, f"{module} imports TFMA before it is needed"
        if package in RUNTIMES:
            allowed = parts[:2] in (("transforms", "models"), ("beam_jobs", "demo"))
            assert allowed or path == TFMA_CLASSES, f"{module} imports {package}"
        if package == "apache_beam" and parts[0] == "transforms":
            allowed = parts[1] == "stages" or path in (TFMA_EVALUATOR, MENDS_BEAM)
            allowed |= name == "apache_beam.io" or name.startswith(FILESYSTEMS)
            assert allowed, f"{module} imports {name}, and is no stage"
        if parts[0] == "transforms":
            assert not name.startswith("evalbeam.beam_jobs"), f"{module} imports the jobs"


def test_registries_name_modules_that_exist():
    from evalbeam.transforms import formats, models

    for name in (*formats.REGISTRY.values(), *(kind.module for kind in models.REGISTRY.values())):
        module = ROOT / name.removeprefix("evalbeam.").replace(".", "/")
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
    assert _loaded("import evalbeam.beam_jobs.cli") == []


def test_a_config_is_checked_without_beam_or_tensorflow():
    assert "apache_beam" not in _loaded("import evalbeam.beam_jobs.config")


def test_a_job_loads_tensorflow_for_models_of_tensorflow_only():
    assert set(_loaded("import evalbeam.beam_jobs.run")) <= {"apache_beam", "pandas", "pyarrow"}
