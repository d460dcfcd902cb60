"""Says on one line why a model failed, from whatever it raised."""

from __future__ import annotations

import re

_CHARACTERS = 500
_GRAPH_STACK = ("Graph execution error", "Detected at node", "<stack traces", "File ")
# Where in the graph, at the end of TensorFlow's messages.
_NODES = re.compile(r"\s*\[\[\{\{node .*", re.DOTALL)

# What TensorFlow's parsers of examples raise, and what it means.
_PARSING = tuple(
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (
            r"Feature: (.+?) \(data type: \w+\) is required but could not be found",
            "the example has no feature {0!r}, which the signature requires",
        ),
        (
            r"Context feature '(.+?)' is required but could not be found",
            "the example's context has no feature {0!r}, which the signature requires",
        ),
        (
            r"[Ff]eature list '(.+?)' is required but could not be found",
            "the example has no feature list {0!r}, which the signature requires",
        ),
        (
            r"Key: (.+?), Index: \d+\.\s+Data types don't match\. "
            r"Data type: (\w+) but expected type: (\w+)",
            "the example's feature {0!r} is {1}, but the signature takes {2}",
        ),
        (
            r"Key: (.+?), Index: \d+\.\s+Number of \w+ values != expected\.\s+"
            r"[Vv]alues size: (\d+) but output shape: (\[.*?\])",
            "the example's feature {0!r} has {1} values, but the signature takes the shape {2}",
        ),
    )
)


def explain(error: Exception) -> str:
    """The error's class and text on one line, without the graph's stack that TensorFlow adds.

    >>> explain(ValueError("no such city\\n  [[{{node lookup}}]] [Op:serve]"))
    'ValueError: no such city'
    >>> explain(ValueError("Feature: age (data type: float) is required but could not be found."))
    "the example has no feature 'age', which the signature requires"
    """
    for pattern, meaning in _PARSING:
        if match := pattern.search(str(error)):
            return meaning.format(*match.groups())
    lines = (line.strip() for line in str(error).splitlines())
    message = " ".join(line for line in lines if line and not line.startswith(_GRAPH_STACK))
    return f"{type(error).__name__}: {_NODES.sub('', message)}"[:_CHARACTERS]
