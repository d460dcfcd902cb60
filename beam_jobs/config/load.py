"""Loads a YAML file into checked settings, with errors that name the line."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

import pydantic
import yaml
from pydantic import BaseModel

from evalbeam.beam_jobs.config.settings import (
    NAME_RULE,
    Aggregate,
    Binarize,
    Confidence,
    Config,
    Conversion,
    Csv,
    Data,
    Dates,
    Edges,
    Image,
    Metric,
    Model,
    Values,
    unknown,
)
from evalbeam.transforms import errors

# Keys that are reserved for later versions: ignoring them silently would mislead.
_LATER = {"gates": "gates", "checks": "checks"}


def load(path: str | Path) -> tuple[Config, str]:
    """Reads and validates a config; returns it and its text.

    Relative paths in it are relative to the working folder, as in a shell.

    Raises:
      ConfigError: the config is invalid; names the file, the line, the value and what to do.
    """
    try:
        text = Path(path).read_text()
    except OSError as e:
        raise errors.ConfigError(f"{path}: cannot read the config: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise errors.ConfigError(
            f"{path}: cannot read the config: it is not text in UTF-8 (byte {e.object[e.start]:#x} "
            f"at {e.start:,}). Save it as UTF-8"
        ) from e
    try:
        raw = yaml.safe_load(text)
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError) as e:
        place = getattr(e, "problem_mark", None)
        line = f":{place.line + 1}" if place else ""
        problem = str(getattr(e, "problem", None) or e)
        if r"'\t'" in problem:
            problem = "a tab; YAML is indented with spaces"
        raise errors.ConfigError(f"{path}{line}: not valid YAML: {problem}") from e
    if raw is None:
        raise errors.ConfigError(f"{path}: the config is empty; it needs `data` and `models`")
    if not isinstance(raw, dict):
        raise errors.ConfigError(f"{path}: a config is a mapping of keys, not {reprlib.repr(raw)}")
    _check_keys(str(path), tree)
    for key in _LATER.keys() & raw.keys():
        raise errors.ConfigError(
            f"{path}:{_line(tree, (key,))}: this version of evalbeam does not evaluate {key}; "
            f"remove `{key}:`, or runs would look as if they had passed them"
        )
    try:
        return Config.model_validate(raw), text
    except pydantic.ValidationError as e:
        lines = [_message(str(path), tree, error) for error in e.errors()]
        raise errors.ConfigError("\n".join(dict.fromkeys(lines))) from e


def locate(path: str, text: str, keys: tuple[str | int, ...]) -> str:
    """The config's path, with the line of a key if it is there.

    Args:
      path: the config's path.
      text: its content, valid YAML.
      keys: the keys from the outermost on; () for the whole config.
    """
    line = _line(yaml.compose(text, Loader=yaml.SafeLoader), keys)
    return f"{path}:{line}" if keys else path


def _check_keys(path: str, node: yaml.Node | None) -> None:
    """Rejects duplicate keys, of which YAML silently keeps the last."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(path, item)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise errors.ConfigError(
                    f"{path}:{line}: {key.value!r} appears twice (first on line {seen[key.value]})"
                )
            seen[key.value] = line
            _check_keys(path, value)


def _message(path: str, tree: yaml.Node | None, error: Any) -> str:
    loc = tuple(part for part in error["loc"] if not str(part).startswith("["))
    where = ".".join(str(part) for part in loc)
    line = _line(tree, loc)
    if error["type"] == "extra_forbidden":
        text = unknown("key", str(loc[-1]), _fields(error["loc"][:-1]))
    elif error["type"] == "missing":
        text = f"missing key {str(loc[-1])!r}"
    else:
        text = _word(error)
        if not isinstance(error["input"], dict | list) and error["type"] != "value_error":
            text += f", not {error['input']!r}"
    return f"{path}:{line}: {where}: {text}" if where else f"{path}:{line}: {text}"


def _word(error: Any) -> str:
    """The validator's complaint in the words of the config."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch":
        return NAME_RULE
    if kind in ("literal_error", "enum"):
        return f"must be one of {context['expected']}"
    if kind == "union_tag_invalid":
        return f"must be one of {context['expected_tags']}"
    if kind in _BOUNDS:
        template, name = _BOUNDS[kind]
        return template.format(context[name])
    for prefix, text in _TYPES.items():
        if kind.startswith(prefix):
            if isinstance(error["input"], dict | list):
                return f"{text}, not {reprlib.repr(error['input'])}"
            return text
    return str(error["msg"])


# By the start of pydantic's error types.
_TYPES = {
    "string": "must be text",
    "int": "must be a whole number",
    "float": "must be a number",
    "finite_number": "must be a finite number",
    "bool": "must be true or false",
    "list": "must be a list",
    "dict": "must be a mapping of keys to values",
    "model": "must be a mapping of keys to values",
    "mapping": "must be a mapping of keys to values",
    "tuple": "must be a list",
    "none": "must be omitted",
}
# The text of a bound, and the name of the bound in the error.
_BOUNDS = {
    "greater_than": ("must be greater than {}", "gt"),
    "greater_than_equal": ("must be at least {}", "ge"),
    "less_than": ("must be less than {}", "lt"),
    "less_than_equal": ("must be at most {}", "le"),
    "too_short": ("must have {} or more entries", "min_length"),
    "string_too_short": ("must have {} or more characters", "min_length"),
}


def _fields(loc: tuple[int | str, ...]) -> list[str]:
    """The valid keys at a location of the config; tags in brackets mark the kind of a slice."""
    models: dict[str, type[BaseModel]] = {
        "data": Data,
        "csv": Csv,
        "models": Model,
        "metrics": Metric,
        "conversion": Conversion,
        "confidence": Confidence,
        "binarize": Binarize,
        "aggregate": Aggregate,
        "[edges]": Edges,
        "[dates]": Dates,
        "[values]": Values,
    }
    names = [part for part in loc if isinstance(part, str)]
    if names[-2:-1] == ["images"]:  # Its keys are names chosen by the user.
        return list(Image.model_fields)
    return list((models.get(names[-1], Config) if names else Config).model_fields)


def _line(tree: yaml.Node | None, loc: tuple[int | str, ...]) -> int:
    """The 1-based line of the deepest part of a location that exists in the text."""
    node, line = tree, 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            entries = [(k, v) for k, v in node.value if k.value == part]
            if not entries:
                break
            key, node = entries[0]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                break
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
