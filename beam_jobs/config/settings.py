"""The settings in a run's YAML config, and the checks on them.

These models are the reference of the config; `evalbeam schema` prints them as JSON Schema for
editors.
"""

from __future__ import annotations

import codecs
import difflib
import fractions
import json
import math
import os
import re
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    Tag,
    WithJsonSchema,
    model_validator,
)

from evalbeam.transforms import batch, errors, formats, models
from evalbeam.transforms.examples import classes, slices
from evalbeam.transforms.examples.slices import Spec
from evalbeam.transforms.metrics.evaluation import Bounds, MetricSpec
from evalbeam.transforms.metrics.metric import ZeroDivision
from evalbeam.transforms.models import files, images

Task = Literal["binary", "multiclass", "multilabel", "regression"]


Tasks = Annotated[
    Annotated[Task, Tag("[one]")] | Annotated[dict[str, Task], Tag("[several]")],
    Discriminator(lambda value: "[several]" if isinstance(value, dict) else "[one]"),
]
# The most characters of a value that an error shows.
_SHOWN = 60
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"
NAME_RULE = (
    "a name consists of up to 128 letters, digits, '_', '.' and '-', and starts with a letter or "
    "digit"
)


class Mistake(ValueError):
    """A mistake in one key of a part of the config that is checked as a whole.

    Attributes:
      keys: where in the part it is.
    """

    def __init__(self, message: str, *keys: str | int) -> None:
        super().__init__(message)
        self.keys = keys


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _to_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _expand_home(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError(f"{value!r} is not a path or URL")
    return os.path.expanduser(value)


Location = Annotated[str, AfterValidator(_expand_home)]
Files = Annotated[
    list[Location],
    BeforeValidator(_to_list, json_schema_input_type=str | list[str]),
    Field(min_length=1),
]


def _parse_numbers(value: Any) -> list[float]:
    if value == []:
        raise ValueError("the list is empty; write a number, or a list with one per channel")
    return [_parse_number(item) for item in (value if isinstance(value, list) else [value])]


def _parse_number(value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        if isinstance(value, str):  # YAML reads 1/255, and even 1e-3, as text.
            numerator, *denominators = map(fractions.Fraction, value.split("/"))
            if len(denominators) > 1:
                raise ValueError
            number = numerator / denominators[0] if denominators else numerator
        else:
            number = fractions.Fraction(value)
        return float(number)
    except (ValueError, TypeError, ArithmeticError) as e:
        raise ValueError(
            f"{show(value)} is not a finite number; write a number, a fraction such as 1/255, or a "
            "list with one per channel"
        ) from e


_DIGITS = r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?"
_NUMBER_SCHEMA = {
    "anyOf": [{"type": "number"}, {"type": "string", "pattern": f"^{_DIGITS}( */ *{_DIGITS})?$"}]
}
Numbers = Annotated[
    list[float],
    BeforeValidator(_parse_numbers),
    WithJsonSchema(
        {"anyOf": [*_NUMBER_SCHEMA["anyOf"], {"type": "array", "items": _NUMBER_SCHEMA}]}
    ),
]


def _sizes_schema(count: int) -> WithJsonSchema:
    """For editors only: the model's own check has a better error message."""
    size = {"type": "integer", "minimum": 1}
    return WithJsonSchema({"type": "array", "items": size, "minItems": count, "maxItems": count})


def _to_name(value: Any) -> Any:
    if isinstance(value, str | int | float):
        return classes.name(value)
    raise ValueError(f"{show(value)} is not a class; write text, a number, true or false")


# A class as a label has it.
Scalar = Annotated[
    str,
    BeforeValidator(_to_name, json_schema_input_type=str | int | float | bool),
]
Classes = list[Scalar] | str | dict[str, list[Scalar] | str] | None


class Image(_Strict):
    """A column of encoded images or raw arrays, and how models get it."""

    column: str | None = Field(None, description="The column; if omitted: the image's name.")
    shape: Annotated[list[int], _sizes_schema(3)] | None = Field(
        None,
        description="[height, width, channels] of raw arrays, which are lists of numbers or uint8 "
        "bytes; if omitted: images are PNG or JPEG bytes.",
    )
    size: Annotated[list[int], _sizes_schema(2)] | None = Field(
        None, description="[height, width] to resize to; if omitted: images keep their size."
    )
    channels: Literal[1, 3, 4] | None = Field(
        None, description="Channels to convert encoded images to: grey, RGB or RGBA."
    )
    interpolation: str = Field(
        "bilinear",
        description="The filter for resizing, as in Pillow.",
        json_schema_extra={"enum": list(images.INTERPOLATIONS)},
    )
    scale: Numbers = Field(
        [1.0], description="Values are multiplied by this: one number, or one per channel."
    )
    offset: Numbers = Field(
        [0.0], description="Added after scaling: one number, or one per channel."
    )
    channels_first: bool = Field(
        False, description="The model takes [channels, height, width], as in PyTorch."
    )

    @model_validator(mode="after")
    def _check(self) -> Image:
        for key, sizes, axes in (
            ("shape", self.shape, ("height", "width", "channels")),
            ("size", self.size, ("height", "width")),
        ):
            if sizes is not None and (len(sizes) != len(axes) or min(sizes) < 1):
                raise ValueError(
                    f"`{key}` must be [{', '.join(axes)}], integers of at least 1, not {sizes}"
                )
            if sizes is not None and math.prod(sizes[:2]) > images.MAX_PIXELS:
                raise ValueError(
                    f"`{key}` {sizes} exceeds the maximum of {images.MAX_PIXELS:,} pixels"
                )
        if self.shape and self.channels:
            raise ValueError(
                f"`channels: {self.channels}` is for encoded images, but `shape: {self.shape}` "
                "is for raw arrays, which keep their channels: remove one of them"
            )
        if self.interpolation not in images.INTERPOLATIONS:
            names = list(images.INTERPOLATIONS)
            raise ValueError(unknown("interpolation", self.interpolation, names))
        if "interpolation" in self.model_fields_set and not self.size:
            raise ValueError(
                f"`interpolation: {self.interpolation}` has no effect without `size`: add `size`, "
                "or remove `interpolation`"
            )
        channels = self.shape[2] if self.shape else self.channels
        for key, numbers in (("scale", self.scale), ("offset", self.offset)):
            if len(numbers) > 1 and not channels:
                raise ValueError(
                    f"`{key}` has {len(numbers)} numbers, one per channel: set the number of "
                    "channels with `channels` or, for raw arrays, `shape`"
                )
            if channels and len(numbers) not in (1, channels):
                raise ValueError(
                    f"`{key}` has {len(numbers)} numbers, but the image has {channels} channels: "
                    "write one number, or one per channel"
                )
        if not any(self.scale):
            raise ValueError("`scale: 0` makes all images equal")
        return self

    def resolve(self, name: str) -> images.Image:
        """The image with this name as the models' module takes it."""
        return images.Image(
            column=self.column or name,
            shape=tuple(self.shape or ()),
            size=tuple(self.size or ()),
            channels=self.channels or 0,
            interpolation=self.interpolation,
            scale=tuple(self.scale),
            offset=tuple(self.offset),
            channels_first=self.channels_first,
            name=name,
        )


def _read_names(path: str) -> tuple[str, ...]:
    """The names in a text file, one per line."""
    try:
        with open(files.local(os.path.expanduser(path)), encoding="utf-8-sig") as file:
            return tuple(line for line in file.read().splitlines() if line)
    except (OSError, UnicodeDecodeError) as e:
        raise errors.ConfigError(
            f"data.classes: {path} cannot be read as a text file with a class per line: {e}"
        ) from e


def _check_delimiter(value: str) -> str:
    if len(value) != 1 or value in '"\r\n':
        raise ValueError(f"{value!r} is not a delimiter; write a single character, such as ';'")
    return value


def _check_encoding(value: str) -> str:
    try:
        codecs.lookup(value)
    except LookupError:
        raise ValueError(
            f"unknown encoding {value!r}; write a name that Python knows, such as utf-8, latin-1, "
            "cp1252 or utf-16"
        ) from None
    return value


class Csv(_Strict):
    """How CSV files are written."""

    delimiter: Annotated[str, AfterValidator(_check_delimiter)] = Field(
        batch.Dialect.delimiter, description="The character between columns."
    )
    encoding: Annotated[str, AfterValidator(_check_encoding)] = Field(
        batch.Dialect.encoding, description="The text's encoding, such as latin-1."
    )

    def dialect(self) -> batch.Dialect:
        """The same settings as the format takes them."""
        return batch.Dialect(self.delimiter, self.encoding)


class Data(_Strict):
    """The labelled examples."""

    files: Files = Field(description="A path, a glob, a filesystem's URL, or a list of them.")
    format: str | None = Field(
        None, description="tfrecord, parquet, csv or jsonl; if omitted: inferred from file names."
    )
    csv: Csv = Field(Csv(), description="The delimiter and encoding of CSV files.")
    label: str | dict[str, str] | None = Field(
        None, description="The label column; for several outputs, output: column."
    )
    classes: Classes = Field(
        None,
        description="The names of the classes, in the order of the scores, or the path of a file "
        "with one per line; for several outputs, output: names. If omitted and labels are names: "
        "found in the data, sorted.",
    )
    positive: Scalar | dict[str, Scalar] | None = Field(
        None,
        description="The positive class of a binary task; if omitted: the last of its two classes. "
        "For several outputs, output: class.",
    )
    unknown_class: str | None = Field(
        None,
        description="The name of a class for labels that are not among `classes`; if omitted: they "
        "are refused.",
    )
    weight: str | None = Field(None, description="The column of example weights.")
    id: str | None = Field(
        None, description="The column that identifies an example; if omitted: its content."
    )
    splits: dict[str, Files] = Field(
        default_factory=dict, description="More splits, name: files. The main one is `eval`."
    )
    images: dict[str, Image] = Field(
        default_factory=dict,
        description="Images by name; a model input of the same name takes the image.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Examples per batch; if omitted: 16,384, or fewer if they are large.",
    )
    max_dead_letters: float = Field(
        0.0, ge=0.0, le=1.0, description="The share of rows that may fail without failing the run."
    )

    def class_names(self, output: str) -> tuple[str, ...]:
        """The names of an output's classes that are given; () if none are.

        Raises:
          ConfigError: a file of names cannot be read, or names are given twice.
        """
        given = self.classes.get(output) if isinstance(self.classes, dict) else self.classes
        if given is None:
            return ()
        names = _read_names(given) if isinstance(given, str) else tuple(given)
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise errors.ConfigError(f"data.classes: {duplicates[0]!r} appears twice")
        if len(names) < 2:
            raise errors.ConfigError(
                f"data.classes has {errors.listed(names) or 'no class'}; there must be two or more"
            )
        return names

    def label_columns(self) -> list[str]:
        """The label columns of all outputs."""
        return [self.label] if isinstance(self.label, str) else list((self.label or {}).values())

    @model_validator(mode="after")
    def _check(self) -> Data:
        if self.format is not None and self.format not in formats.REGISTRY:
            raise Mistake(unknown("format", self.format, list(formats.REGISTRY)), "format")
        if self.unknown_class is not None and self.classes is None:
            raise Mistake(
                "`unknown_class` is for labels that are not among `classes`: list these, too",
                "unknown_class",
            )
        if batch.MAIN_SPLIT in self.splits:
            raise Mistake(
                "'eval' is the name of the main split (`files`): rename this split",
                "splits",
                batch.MAIN_SPLIT,
            )
        return self


Columns = str | Annotated[list[str], Field(min_length=1)]


def _to_mapping(value: Any) -> Any:
    is_names = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return {name: name for name in value} if is_names else value


def _check_function(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
        raise ValueError(
            f"{value!r} is not a function's name; write module:function, as in my_models:predict"
        )
    return value


def _check_digest(value: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", value):
        raise ValueError(f"{value!r} is not a SHA-256 digest, which has 64 hexadecimal digits")
    return value.lower()


class Model(_Strict):
    """A model version."""

    name: str = Field(min_length=1, description="The version's name in results.")
    path: Location | None = Field(
        None,
        description="The folder of a SavedModel or TensorFlow.js model, or a .keras, .tflite or "
        ".onnx file.",
    )
    predictions: Columns | dict[str, Columns] | None = Field(
        None,
        description="The column of stored predictions, or a list of columns with a score for each "
        "class; for several outputs, output: column.",
    )
    classes: str | None = Field(
        None,
        description="The column of the classes of stored predictions, where rows list only the "
        "largest scores.",
    )
    scores: Literal["probabilities", "logits", "percent", "as_is"] | None = Field(
        None,
        description="The scale of its scores: logits go through sigmoid or softmax, percent are "
        "divided by 100, as_is are not checked; if omitted: they must be probabilities.",
    )
    callable: Annotated[str, AfterValidator(_check_function)] | None = Field(
        None, description="A Python function, as module:function, that takes `inputs` by name."
    )
    baseline: bool = Field(False, description="Compare the other versions with this one.")
    conversion_of: str | None = Field(
        None, description="The version that this one was converted from, and is judged against."
    )
    sha256: Annotated[str, AfterValidator(_check_digest)] | None = Field(
        None, description="The model's expected digest; others are rejected."
    )
    allow_unsafe: bool = Field(
        False,
        description="Whether to run code inside a .keras file (a Lambda layer), and operations of "
        "a SavedModel that reach files, the network or Python.",
    )
    signature: str = Field(
        models.ModelSpec.signature, description="The signature of a SavedModel or .tflite file."
    )
    inputs: Annotated[
        dict[str, str | Annotated[list[str], Field(min_length=1)]],
        BeforeValidator(_to_mapping, json_schema_input_type=dict[str, str | list[str]] | list[str]),
    ] = Field(
        default_factory=dict,
        description="Model input: column or image, if the names differ, or a list of columns to "
        "stack; all inputs of a callable.",
    )
    outputs: list[str] = Field(
        default_factory=list, description="The outputs to evaluate; if omitted: all."
    )

    @model_validator(mode="after")
    def _check(self) -> Model:
        keys = ("path", "callable", "predictions")
        sources = [f"`{key}`" for key in keys if getattr(self, key) is not None]
        if not sources:
            raise ValueError(
                f"model {self.name!r} needs one of `path` (a model), `callable` (a function) and "
                "`predictions` (a column)"
            )
        if len(sources) > 1:
            raise ValueError(f"model {self.name!r} has {' and '.join(sources)}: keep one")
        for key in ("sha256", "allow_unsafe", "signature"):
            if self.path is None and key in self.model_fields_set:
                raise Mistake(
                    f"model {self.name!r} has no `path`, so `{key}` does not apply: remove it", key
                )
        if self.classes is not None and not isinstance(self.predictions, str):
            raise Mistake(
                f"model {self.name!r} has `classes`, which names the classes of one column of "
                "scores: set `predictions` to this column, or remove `classes`",
                "classes",
            )
        if self.predictions is not None and self.inputs:
            raise Mistake(
                f"model {self.name!r} has `predictions`, so `inputs` does not apply: remove it",
                "inputs",
            )
        return self

    def sources(self) -> tuple[tuple[str, str | tuple[str, ...]], ...]:
        """The inputs as the models' module takes them."""
        return tuple(
            (name, source if isinstance(source, str) else tuple(source))
            for name, source in self.inputs.items()
        )


class Edges(_Strict):
    """A numeric column, cut into bins."""

    key: str = Field(description="The column.")
    edges: list[FiniteFloat] | None = Field(
        None, min_length=1, description="The lower edges of bins, ascending."
    )
    quantiles: int | None = Field(
        None, ge=2, le=1000, description="The number of bins of equal size."
    )

    @model_validator(mode="after")
    def _check(self) -> Edges:
        if (self.edges is None) == (self.quantiles is None):
            raise ValueError(f"slice column {self.key!r} needs either `edges` or `quantiles`")
        if self.edges and sorted(set(self.edges)) != self.edges:
            raise ValueError(f"the edges of {self.key!r} must be ascending, not {self.edges}")
        return self

    def term(self) -> slices.Term:
        """The same settings as a slicing spec's term."""
        return slices.Term(self.key, edges=tuple(self.edges or ()), quantiles=self.quantiles)


class Dates(_Strict):
    """A column of dates or times, by day, month, ..."""

    key: str = Field(description="The column.")
    by: slices.Period = Field(description="The period.")

    def term(self) -> slices.Term:
        """The same settings as a slicing spec's term."""
        return slices.Term(self.key, by=self.by)


def _key_kind(value: Any) -> str:
    if isinstance(value, str):
        return "[column]"
    return "[dates]" if isinstance(value, dict) and "by" in value else "[edges]"


Key = Annotated[
    Annotated[str, Tag("[column]")]
    | Annotated[Edges, Tag("[edges]")]
    | Annotated[Dates, Tag("[dates]")],
    Discriminator(_key_kind),
]


def _check_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("YAML reads yes, no, true and false as booleans: put the value in quotes")
    if not isinstance(value, str | int | float):
        raise ValueError(
            f"must be text or a number, not {show(value)}; a slice has one value of a column, and "
            "rows without a value are in none"
        )
    return value


class Values(_Strict):
    """A slice with given values, optionally crossed with all values of `keys`."""

    values: dict[str, Annotated[str | int | float, BeforeValidator(_check_value)]] = Field(
        min_length=1, description="The value of each column, column: value."
    )
    keys: list[Key] = Field(default_factory=list, description="Columns to cross the values with.")


def _slice_kind(value: Any) -> str:
    if isinstance(value, dict):
        return "[values]" if "values" in value else _key_kind(value)
    return "[cross]"


# Distinguished by their form, so that errors refer to the intended one.
Slice = Annotated[
    Annotated[
        list[Key],
        BeforeValidator(_to_list, json_schema_input_type=str | list[Key]),
        Tag("[cross]"),
    ]
    | Annotated[Edges, Tag("[edges]")]
    | Annotated[Dates, Tag("[dates]")]
    | Annotated[Values, Tag("[values]")],
    Discriminator(_slice_kind),
]


# Of a score among those of an example, the largest being 1.
Rank = Annotated[int, Field(ge=1)]


class Binarize(_Strict):
    """Makes a multi-class output binary, as in TFMA's MetricsSpec."""

    class_ids: list[int | str] = Field(
        [], description="Each of these classes, by id or name, versus all others."
    )
    k_list: list[Rank] = Field([], description="Only the k-th largest score.")
    top_k_list: list[Rank] = Field([], description="Only the k largest scores.")


class Aggregate(_Strict):
    """Averages a metric over classes, as in TFMA's MetricsSpec."""

    average: Literal["micro", "macro", "weighted_macro"] = Field(
        description="micro: over all decisions; macro: over classes; weighted_macro: by frequency."
    )
    class_weights: dict[int | str, float] = Field(
        {}, description="Weights by class, given by id or name."
    )
    top_k_list: list[Rank] = Field([], description="Only the k largest scores.")


def _to_text(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:g}" if is_number else value


class Metric(_Strict):
    """A metric by its TFMA or Keras class name, or your own class in `module`."""

    class_name: str = Field(description="The class's name in TFMA, Keras or `module`.")
    config: dict[str, Any] = Field(default_factory=dict, description="Arguments of the class.")
    module: str = Field("", description="The module of your own class; if omitted: TFMA or Keras.")
    models: list[str] = Field([], description="The versions to compute it for; if omitted: all.")
    outputs: list[str] = Field([], description="The outputs to compute it for; if omitted: all.")
    binarize: Binarize = Field(Binarize(), description="Compute it for single classes or scores.")
    aggregate: Aggregate | None = Field(None, description="Average it over classes.")
    weighted: bool | None = Field(
        None, description="Whether to use example weights; if omitted: if there are any."
    )
    zero_division: Annotated[
        ZeroDivision, BeforeValidator(_to_text, json_schema_input_type=str | int)
    ] = Field(
        "skip",
        description="What a class counts as in a macro average if the metric is undefined there: "
        "nan, 0, or skip: it is left out, and the row has the number of `classes`.",
    )

    @model_validator(mode="after")
    def _check(self) -> Metric:
        for key in ("zero_division", "binarize", "aggregate"):
            if not self.module and key in self.config:
                raise Mistake(f"`{key}` goes next to `config`, not in it", "config", key)
        return self

    def spec(self) -> MetricSpec:
        """The same settings as the metrics' planner takes them."""
        return MetricSpec(
            class_name=self.class_name,
            config=json.dumps(self.config, sort_keys=True, default=str),
            module=self.module,
            models=tuple(self.models),
            outputs=tuple(self.outputs),
            class_ids=tuple(self.binarize.class_ids),
            k_list=tuple(self.binarize.k_list),
            top_k_list=tuple(self.binarize.top_k_list),
            aggregate=self.aggregate.average if self.aggregate else "",
            aggregate_top_k=tuple(self.aggregate.top_k_list) if self.aggregate else (),
            class_weights=tuple(sorted(self.aggregate.class_weights.items(), key=str))
            if self.aggregate
            else (),
            weighted=self.weighted,
            zero_division=self.zero_division,
            native=True,
        )


def _to_metric(value: Any) -> Any:
    return {"class_name": value} if isinstance(value, str) else value


class Confidence(_Strict):
    """Groups examples for intervals and paired comparisons."""

    level: float = Field(0.95, gt=0, lt=1, description="Confidence level.")
    units: int = Field(
        50, ge=0, le=1000, description="Number of hash buckets of examples; 0: none."
    )
    seed: int = Field(7, description="Random seed.")


class Conversion(_Strict):
    """How far a converted model's metrics may deviate from the original's, as a share of these."""

    good: FiniteFloat = Field(Bounds.good, ge=0, description="The largest deviation that is good.")
    acceptable: FiniteFloat = Field(
        Bounds.acceptable, ge=0, description="The largest deviation that is acceptable."
    )
    bad: FiniteFloat = Field(
        Bounds.bad,
        ge=0,
        description="A larger loss is bad; a smaller one, beyond acceptable, is worse.",
    )

    def bounds(self) -> Bounds:
        """The bounds that conversions are judged by."""
        return Bounds(good=self.good, acceptable=self.acceptable, bad=self.bad)

    @model_validator(mode="after")
    def _check(self) -> Conversion:
        if not self.good <= self.acceptable <= self.bad:
            raise ValueError(
                "the bounds must ascend from good to acceptable to bad, not "
                f"{self.good}, {self.acceptable}, {self.bad}"
            )
        return self


class Config(_Strict):
    """An evaluation of model versions on labelled data."""

    name: str = Field(
        "evaluation", pattern=NAME, description="The evaluation's name, used in run IDs."
    )
    task: Tasks | None = Field(
        None, description="If omitted: inferred from the data; for several outputs, output: task."
    )
    data: Data = Field(description="The data to evaluate on.")
    models: list[Model] = Field(min_length=1, description="The versions to evaluate and compare.")
    eval_config: Location | None = Field(
        None, description="A TFMA EvalConfig (pbtxt or JSON), instead of slices and metrics."
    )
    slices: list[Slice] = Field(
        default_factory=list,
        description="Slices, besides the overall one: columns, lists of columns to cross, values.",
    )
    metrics: Annotated[
        list[Annotated[Metric, BeforeValidator(_to_metric, json_schema_input_type=str | Metric)]]
        | None,
        Field(min_length=1, description="If omitted: the usual ones for the task."),
    ] = None
    thresholds: list[FiniteFloat] = Field(
        [0.5], min_length=1, max_length=10_000, description="Thresholds of the confusion matrices."
    )
    min_slice_size: int = Field(
        1, ge=1, description="Slices with fewer examples have no results; whole splits always do."
    )
    conversion: Conversion = Field(Conversion(), description="The bounds for judging conversions.")
    confidence: Confidence = Field(
        Confidence(), description="Settings for intervals and paired comparisons."
    )
    output: Location = Field(
        "results", description="The folder or URL for the results of all runs."
    )

    @property
    def baseline(self) -> str | None:
        """The version that is marked as the baseline."""
        return next((model.name for model in self.models if model.baseline), None)

    @model_validator(mode="after")
    def _check(self) -> Config:
        names = [model.name for model in self.models]
        for i, model in enumerate(self.models):
            if model.name in names[:i]:
                raise Mistake(
                    f"model names must be unique; {model.name!r} appears twice", "models", i, "name"
                )
        baselines = [i for i, model in enumerate(self.models) if model.baseline]
        if len(baselines) > 1:
            marked = " and ".join(repr(names[i]) for i in baselines)
            raise Mistake(
                f"only one model may be the baseline, not {marked}",
                *("models", baselines[1], "baseline"),
            )
        for i, model in enumerate(self.models):
            if model.conversion_of is not None and model.conversion_of not in names:
                raise Mistake(
                    unknown("model", model.conversion_of, names), "models", i, "conversion_of"
                )
        self._check_conversions()
        for key in ("slices", "metrics"):
            if self.eval_config is not None and getattr(self, key):
                raise Mistake(
                    "`eval_config` replaces `slices` and `metrics`: remove these, or `eval_config`",
                    key,
                )
        if self.eval_config is None and self.data.label is None:
            raise Mistake("`label` is missing: set it to the column that holds the label", "data")
        self._check_thresholds()
        for i, entry in enumerate(self.slices):
            columns = [term.column for term in _spec(entry)]
            if twice := sorted({column for column in columns if columns.count(column) > 1}):
                raise Mistake(
                    f"crosses the column {twice[0]!r} with itself: name it once", "slices", i
                )
        return self

    def _check_thresholds(self) -> None:
        """Thresholds must be probabilities, unless a version's scores are not, and are not checked.

        Those of scores taken as they are, which an EvalConfig's are by default, may be any number.
        """
        if self.eval_config is not None or any(m.scores == "as_is" for m in self.models):
            return
        given: list[tuple[Any, tuple[str | int, ...]]] = [(self.thresholds, ("thresholds",))]
        for i, metric in enumerate(self.metrics or ()):
            given.append((metric.config.get("thresholds"), ("metrics", i, "config", "thresholds")))
        for thresholds, keys in given:
            for threshold in thresholds if isinstance(thresholds, list) else [thresholds]:
                if isinstance(threshold, int | float) and not 0 <= threshold <= 1:
                    raise Mistake(
                        f"{threshold:g} is not in [0, 1], as scores are; those that are not "
                        "probabilities need `scores: as_is` of their version",
                        *keys,
                    )

    def _check_conversions(self) -> None:
        """No version may be a conversion of itself, directly or through others."""
        originals = {model.name: model.conversion_of for model in self.models}
        for i, name in enumerate(originals):
            chain = [name]
            while (original := originals[chain[-1]]) is not None:
                if original in chain:
                    loop = " of ".join(map(repr, [*chain, original]))
                    raise Mistake(f"conversions form a cycle: {loop}", "models", i, "conversion_of")
                chain.append(original)

    def slicing_specs(self) -> tuple[Spec, ...]:
        """The slicing specs, the overall one first, without duplicates."""
        return tuple(dict.fromkeys(((), *map(_spec, self.slices))))


def _spec(entry: list[Key] | Edges | Dates | Values) -> Spec:
    if isinstance(entry, Values):
        fixed = tuple(slices.Term(key, value=value) for key, value in entry.values.items())
        return fixed + tuple(_term(key) for key in entry.keys)
    if isinstance(entry, Edges | Dates):
        return (entry.term(),)
    return tuple(_term(key) for key in entry)


def _term(key: str | Edges | Dates) -> slices.Term:
    return slices.Term(key) if isinstance(key, str) else key.term()


def unknown(what: str, value: str, valid: list[str]) -> str:
    """The text of an error for an unknown value, with the closest and all valid ones."""
    near = difflib.get_close_matches(value, valid, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what} {value!r}; {hint}valid {what}s: {', '.join(valid)}"


def show(value: Any) -> str:
    """A value of the config for an error, as YAML has it; text in quotes."""
    if isinstance(value, str):
        return repr(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf, sort_keys=False)
    text = text.removesuffix("...\n").strip()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
