"""Says on one line why a model failed, from whatever it raised."""

from __future__ import annotations

import re

_CHARACTERS = 500
_GRAPH_STACK = ("Graph execution error", "Detected at node", "<stack traces", "File ")
# Where in the graph, at the start and the end of TensorFlow's messages.
_NODES = re.compile(r"\{\{function_node .*?\}\}\s*|\s*\[\[\{\{node .*|\s*\[Op:.*", re.DOTALL)

# What TensorFlow's parsers of examples raise, and what it means.
_PARSING = tuple(
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (
            r"(?:Feature: |[Ff]eature list ')(.+?)(?: \(data type: \w+\)|') is required but could ",
            "the example has no {0!r}, which the signature requires",
        ),
        (
            r"(?:Key|Context feature|Feature list): (.+?)(?:, Index: \d+)?\.\s+"
            r"Data types don't match\..*?xpected type: (\w+)",
            "{0!r} of the example is not {1}, which the signature takes",
        ),
        (
            r"Key: (.+?), Index: \d+\.\s+Number of (?:\w+ )?values != expected\.\s+"
            r"[Vv]alues size: (\d+) but output shape: (\[.*?\])",
            "the example has {1} values of {0!r}, but the signature takes the shape {2}",
        ),
        (
            r"number of elements for feature (.+?): expected (\d+), but found (\d+)",
            "the example has {2} values of {0!r}, but the signature takes {1}",
        ),
    )
)


def explain(error: Exception) -> str:
    """The error's class and text on one line, without the graph's stack that TensorFlow adds.

    >>> explain(ValueError("no such city\\n  [[{{node lookup}}]] [Op:serve]"))
    'ValueError: no such city'
    >>> explain(ValueError("Feature: age (data type: float) is required but could not be found."))
    "the example has no 'age', which the signature requires"
    """
    for pattern, meaning in _PARSING:
        if match := pattern.search(str(error)):
            return meaning.format(*match.groups())
    lines = (line.strip() for line in str(error).splitlines())
    message = " ".join(line for line in lines if line and not line.startswith(_GRAPH_STACK))
    return f"{type(error).__name__}: {_NODES.sub('', message).strip()}"[:_CHARACTERS]
