"""The worked examples in docstrings are right, and the core's public classes have one."""

import doctest
import importlib

import pytest

# Module -> what must show an example.
EXAMPLES = {
    "evalbeam.transforms.examples.slices": ("SliceKey", "canonical"),
    "evalbeam.transforms.metrics.metric": ("Metric",),
    "evalbeam.transforms.metrics.sheet": ("Sheet",),
    "evalbeam.transforms.metrics.statistics": ("Confusion", "Histogram"),
    "evalbeam.transforms.metrics.table": ("Table",),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_in_docstrings_are_right(name):
    module = importlib.import_module(name)
    tests = {
        test.name.removeprefix(f"{name}."): test for test in doctest.DocTestFinder().find(module)
    }
    for documented in EXAMPLES[name]:
        assert tests[documented].examples, f"{name}.{documented} shows no example"
    runner = doctest.DocTestRunner()
    for test in tests.values():
        report = []
        runner.run(test, out=report.append)
        assert not runner.failures, "".join(report)
