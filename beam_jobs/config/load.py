"""Loads a YAML file into checked settings, with errors that name the line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
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
    Mistake,
    Model,
    Values,
    show,
    unknown,
)
from evalbeam.transforms import errors
from evalbeam.transforms.tfma import eval_config

# The parts of a config by their keys; tags in brackets mark the kind of a slice.
_PARTS: dict[str, type[BaseModel]] = {
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
# Keys that are reserved for later versions: ignoring them silently would mislead.
_LATER = {"gates", "checks"}
# More than a person writes; a few lines of aliases can stand for billions of values.
_MOST_VALUES = 1_000_000


class _Loader(yaml.SafeLoader):
    """Leaves dates as they are written: no key takes anything but text or a number for them."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def load(path: str | Path) -> tuple[Config, str]:
    """Reads and validates a config; returns it and its text.

    Relative paths in it are relative to the working folder, as in a shell.

    Raises:
      ConfigError: the config is invalid; names the file, the line, the value and what to do.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as e:
        raise errors.ConfigError(f"{path}: cannot read the config: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise errors.ConfigError(
            f"{path}: cannot read the config: it is not text in UTF-8 (byte {e.object[e.start]:#x} "
            f"at {e.start:,}). Save it as UTF-8"
        ) from e
    try:
        tree = yaml.compose(text, Loader=_Loader)
        values = _count_values(tree, {})
        if values > _MOST_VALUES:
            raise errors.ConfigError(
                f"{path}: its aliases (*name) stand for more than {_MOST_VALUES:,} values; write "
                "out those that are needed"
            )
        raw = parse(text)
    except RecursionError as e:
        raise errors.ConfigError(
            f"{path}: not a config: lists and mappings are nested too deeply, or an alias (*name) "
            "is in what it names"
        ) from e
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
        raise errors.ConfigError(f"{path}: a config is a mapping of keys, not {show(raw)}")
    _check_keys(str(path), tree)
    for key in _LATER & raw.keys():
        raise errors.ConfigError(
            f"{path}:{_line(tree, (key,))}: this version of evalbeam does not evaluate {key}; "
            f"remove `{key}:`, or runs would look as if they had passed them"
        )
    try:
        return Config.model_validate(raw), text
    except pydantic.ValidationError as e:
        lines = [_message(str(path), tree, raw, group) for group in _group(raw, e.errors())]
        raise errors.ConfigError("\n".join(dict.fromkeys(lines))) from e


def parse(text: str) -> Any:
    """A config's content; raises yaml.YAMLError or ValueError if it is not YAML."""
    return yaml.load(text, Loader=_Loader)


def locate(path: str, text: str, error: errors.ConfigError) -> str:
    """The text of an error with `keys`, after its place in the config, or else in its EvalConfig.

    Args:
      path: the config's path.
      text: its content, valid YAML.
      error: what is wrong.
    """
    node = raw = parse(text)
    for part in error.keys:
        if not _holds(node, part) and "eval_config" in raw:
            message = str(error).removeprefix(f"{'.'.join(map(str, error.keys))}: ")
            return f"{eval_config.locate(raw['eval_config'], message)}: {message}"
        node = node[part] if _holds(node, part) else None
    line = _line(yaml.compose(text, Loader=_Loader), error.keys)
    return f"{path}:{line}: {error}"


def _count_values(node: yaml.Node | None, counts: dict[int, float]) -> float:
    """The number of values in a node, those that aliases repeat each time.

    Raises RecursionError for a node that holds itself.
    """
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    else:
        children = node.value if isinstance(node, yaml.SequenceNode) else []
    if id(node) not in counts:
        counts[id(node)] = 1.0 + sum(_count_values(child, counts) for child in children)
    return counts[id(node)]


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


def _group(raw: Any, found: Sequence[Any]) -> Iterator[list[Any]]:
    """The errors to report, each as a list: one, or those of all forms that a value may have.

    Where a value may have several forms, the validator complains of each. Those count that look
    furthest into the value, as it comes closest to their form.
    """
    for _, group in itertools.groupby(found, key=lambda error: _fork(raw, error)):
        alternatives = list(group)
        depth = max(len(_path(raw, error)) for error in alternatives)
        deepest = [error for error in alternatives if len(_path(raw, error)) == depth]
        # A form of the right type is the one that was meant.
        yield [error for error in deepest if _type(error) is None][:1] or deepest


def _fork(raw: Any, error: Any) -> tuple[Any, ...]:
    """The place of the outermost value of several forms; the error's own if there is none."""
    loc, node = error["loc"], raw
    for i, part in enumerate(loc[:-1] if error["type"] == "missing" else loc):
        if _holds(node, part):
            node = node[part]
        elif not str(part).startswith("["):
            return loc[:i]
    return loc


def _path(raw: Any, error: Any) -> tuple[Any, ...]:
    """The keys and positions of an error's place, without the validator's names of forms."""
    path, node = [], raw
    for part in error["loc"]:
        if _holds(node, part):
            node = node[part]
            path.append(part)
    return (*path, error["loc"][-1]) if error["type"] == "missing" else tuple(path)


def _holds(node: Any, part: Any) -> bool:
    if isinstance(node, list):
        return isinstance(part, int) and part < len(node)
    return isinstance(node, dict) and part in node


def _message(path: str, tree: yaml.Node | None, raw: Any, group: list[Any]) -> str:
    error = group[0]
    mistake = error.get("ctx", {}).get("error")
    loc = _path(raw, error) + (mistake.keys if isinstance(mistake, Mistake) else ())
    where = ".".join(str(part) for part in loc)
    line = _line(tree, loc)
    types = [text for text in map(_type, group) if text is not None]
    if error["type"] == "extra_forbidden":
        text = _unknown_key(error["loc"])
    elif error["type"] == "missing":
        text = f"missing key {str(loc[-1])!r}"
    elif types:
        text = f"must be {_either(list(dict.fromkeys(types)))}, not {show(error['input'])}"
        if "text" in types and isinstance(error["input"], int | float):
            text += "; put text in quotes"
    else:
        text = _word(error)
        if error["type"] != "value_error":
            text += f", not {show(error['input'])}"
    return f"{path}:{line}: {where}: {text}" if where else f"{path}:{line}: {text}"


def _either(words: list[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _unknown_key(loc: tuple[int | str, ...]) -> str:
    """A key that the part does not have, but perhaps the part around it or one in it."""
    *_, key = loc
    keys = [part for part in loc[:-1] if isinstance(part, str) and not part.startswith("[")]
    if keys and key in _fields(tuple(keys[:-1])):
        return f"`{key}` goes next to `{keys[-1]}`, not in it"
    valid = _fields(loc[:-1])
    for inner in valid:
        if inner in _PARTS and key in _PARTS[inner].model_fields:
            return f"`{key}` goes in `{inner}`"
    return unknown("key", str(key), valid)


def _type(error: Any) -> str | None:
    """The type that a value of another type should have; None for any other error."""
    return next((text for kind, text in _TYPES.items() if error["type"].startswith(kind)), None)


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
    if kind == "invalid_key":
        return "keys must be text"
    if kind in _BOUNDS:
        template, name = _BOUNDS[kind]
        return template.format(context[name])
    return str(error["msg"])


# By the start of pydantic's error types.
_TYPES = {
    "string_type": "text",
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping of keys to values",
    "model": "a mapping of keys to values",
    "mapping": "a mapping of keys to values",
}
# The text of a bound, and the name of the bound in the error.
_BOUNDS = {
    "greater_than": ("must be greater than {:,}", "gt"),
    "greater_than_equal": ("must be at least {:,}", "ge"),
    "less_than": ("must be less than {:,}", "lt"),
    "less_than_equal": ("must be at most {:,}", "le"),
    "too_long": ("must have at most {:,} entries", "max_length"),
    "too_short": ("must have {} or more entries", "min_length"),
    "string_too_short": ("must have {} or more characters", "min_length"),
}


def _fields(loc: tuple[int | str, ...]) -> list[str]:
    """The valid keys at a location of the config."""
    names = [part for part in loc if isinstance(part, str)]
    if not names:
        return list(Config.model_fields)
    if names[-2:-1] == ["images"]:  # Its keys are names chosen by the user.
        return list(Image.model_fields)
    return list(_PARTS[names[-1]].model_fields) if names[-1] in _PARTS else []


def _line(tree: yaml.Node | None, loc: tuple[int | str, ...]) -> int:
    """The 1-based line of the deepest part of a location that exists in the text."""
    node, line = tree, 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            entries = [(k, v) for k, v in node.value if k.value == str(part)]
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
