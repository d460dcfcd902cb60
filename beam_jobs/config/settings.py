"""The run's YAML config: what may stand in it, and errors that name the line.

The models below are the reference of the config; `evalbeam schema` prints them as JSON Schema for
editors.
"""

from __future__ import annotations

import difflib
import fractions
import json
import math
import re
from typing import Annotated, Any, Literal

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
from evalbeam.transforms.examples import slices
from evalbeam.transforms.examples.slices import Spec
from evalbeam.transforms.metrics import plan
from evalbeam.transforms.models import images
from evalbeam.transforms.results import compare

Task = Literal["binary", "multiclass", "multilabel", "regression"]


Tasks = Annotated[
    Annotated[Task, Tag("[one]")] | Annotated[dict[str, Task], Tag("[several]")],
    Discriminator(lambda value: "[several]" if isinstance(value, dict) else "[one]"),
]
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
NAME_RULE = "a name is made of letters, digits, '_', '.' and '-', and begins with a letter or digit"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Files = Annotated[
    list[str],
    BeforeValidator(_listed, json_schema_input_type=str | list[str]),
    Field(min_length=1),
]


def _numbers(value: Any) -> list[float]:
    if value == []:
        raise ValueError("an empty list; write a number, or a list of one for each channel")
    return [_number(one) for one in (value if isinstance(value, list) else [value])]


def _number(value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        if isinstance(value, str):  # As YAML reads 1/255, and 1e-3 too.
            above, *below = map(fractions.Fraction, value.split("/"))
            if len(below) > 1:
                raise ValueError
            number = above / below[0] if below else above
        else:
            number = fractions.Fraction(value)
        return float(number)
    except (ValueError, TypeError, ArithmeticError) as e:
        raise ValueError(
            f"{value!r} is no finite number; write a number, a fraction such as 1/255, or a list "
            "of one for each channel"
        ) from e


_DIGITS = r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?"
_NUMBER_SCHEMA = {
    "anyOf": [{"type": "number"}, {"type": "string", "pattern": f"^{_DIGITS}( */ *{_DIGITS})?$"}]
}
Numbers = Annotated[
    list[float],
    BeforeValidator(_numbers),
    WithJsonSchema(
        {"anyOf": [*_NUMBER_SCHEMA["anyOf"], {"type": "array", "items": _NUMBER_SCHEMA}]}
    ),
]


def _sizes(count: int) -> WithJsonSchema:
    """For editors; what the user is told when sizes are wrong says which they are."""
    size = {"type": "integer", "minimum": 1}
    return WithJsonSchema({"type": "array", "items": size, "minItems": count, "maxItems": count})


class Image(_Strict):
    """What a model's input is made of: encoded images or raw arrays of a column."""

    column: str | None = Field(None, description="Left out: the column of the image's name.")
    shape: Annotated[list[int], _sizes(3)] | None = Field(
        None,
        description="Of raw arrays, lists of numbers or uint8 bytes: [height, width, channels]; "
        "left out: PNG or JPEG bytes.",
    )
    size: Annotated[list[int], _sizes(2)] | None = Field(
        None, description="[height, width] that images are resized to; left out: they stay."
    )
    channels: Literal[1, 3, 4] | None = Field(
        None, description="What encoded images are brought to: grey, RGB or RGBA."
    )
    interpolation: str = Field(
        "bilinear",
        description="How they are resized: Pillow's filters.",
        json_schema_extra={"enum": list(images.INTERPOLATIONS)},
    )
    scale: Numbers = Field(
        [1.0], description="Values are times this, plus `offset`; one, or one for each channel."
    )
    offset: Numbers = Field([0.0], description="Added after `scale`.")
    channels_first: bool = Field(
        False, description="The model takes [channels, height, width], as PyTorch's do."
    )

    @model_validator(mode="after")
    def _sound(self) -> Image:
        for key, given, parts in (
            ("shape", self.shape, ("height", "width", "channels")),
            ("size", self.size, ("height", "width")),
        ):
            if given is not None and (len(given) != len(parts) or min(given) < 1):
                raise ValueError(
                    f"`{key}` is [{', '.join(parts)}], whole numbers from 1, not {given}"
                )
            if given is not None and math.prod(given[:2]) > images.MAX_PIXELS:
                raise ValueError(
                    f"`{key}` {given} is more than {images.MAX_PIXELS:,} pixels, which is the most"
                )
        if self.shape and self.channels:
            raise ValueError(
                f"`channels: {self.channels}` is for encoded images, and `shape: {self.shape}` "
                "for raw arrays, which keep their channels: drop one of them"
            )
        if self.interpolation not in images.INTERPOLATIONS:
            known = list(images.INTERPOLATIONS)
            raise ValueError(unknown("interpolation", self.interpolation, known))
        if "interpolation" in self.model_fields_set and not self.size:
            raise ValueError(
                f"`interpolation: {self.interpolation}` is how images get their `size`, which is "
                "missing: add it, or drop `interpolation`"
            )
        channels = self.shape[2] if self.shape else self.channels
        for key, numbers in (("scale", self.scale), ("offset", self.offset)):
            if len(numbers) > 1 and not channels:
                raise ValueError(
                    f"`{key}` has {len(numbers)} numbers, one for each channel: say how many "
                    "channels the images have, with `channels` or, for raw arrays, `shape`"
                )
            if channels and len(numbers) not in (1, channels):
                raise ValueError(
                    f"`{key}` has {len(numbers)} numbers, and the image {channels} channels: give "
                    "one number, or one for each channel"
                )
        if not any(self.scale):
            raise ValueError("`scale` 0 makes all images the same")
        return self

    def declared(self, name: str) -> images.Image:
        """The same in the terms of the models."""
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


class Data(_Strict):
    """The labelled examples."""

    files: Files = Field(description="A path, a glob, a filesystem's URL, or a list of them.")
    format: str | None = Field(
        None, description="tfrecord, parquet, csv or jsonl; left out: by the files' ending."
    )
    label: str | dict[str, str] | None = Field(
        None, description="The label's column; with several outputs, output: column."
    )
    weight: str | None = Field(None, description="The example weight's column.")
    id: str | None = Field(
        None, description="The column that identifies an example; left out: its content does."
    )
    splits: dict[str, Files] = Field(
        default_factory=dict, description="Further splits, name: files. The main one is `eval`."
    )
    images: dict[str, Image] = Field(
        default_factory=dict,
        description="Images that models' inputs are matched to by name, before columns.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        description="Examples decoded and predicted at once; left out: 16,384, or fewer if large.",
    )
    max_dead_letters: float = Field(
        0.0, ge=0.0, le=1.0, description="The share of rows that may fail to be scored."
    )

    @model_validator(mode="after")
    def _known(self) -> Data:
        if self.format is not None and self.format not in formats.REGISTRY:
            raise ValueError(unknown("format", self.format, list(formats.REGISTRY)))
        if batch.MAIN_SPLIT in self.splits:
            raise ValueError("'eval' is the name of the main split (`files`); call this one other")
        return self


def _mapped(value: Any) -> Any:
    return {name: name for name in value} if isinstance(value, list) else value


def _function(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
        raise ValueError(
            f"{value!r} names no function; write module:function, as my_models:predict"
        )
    return value


def _digest(value: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", value):
        raise ValueError(f"{value!r} is no SHA-256; that has 64 hexadecimal digits")
    return value.lower()


class Model(_Strict):
    """One version."""

    name: str = Field(min_length=1, description="What results call it.")
    path: str | None = Field(
        None,
        description="A SavedModel's or TensorFlow.js model's folder, or a .keras, .tflite or .onnx "
        "file.",
    )
    predictions: str | dict[str, str] | None = Field(
        None, description="Stored predictions: their column, or output: column."
    )
    callable: Annotated[str, AfterValidator(_function)] | None = Field(
        None, description="A Python function, module:function, of columns (`inputs`) by name."
    )
    baseline: bool = Field(False, description="The version that the others are compared with.")
    conversion_of: str | None = Field(
        None, description="The version that this one was converted from, and must agree with."
    )
    sha256: Annotated[str, AfterValidator(_digest)] | None = Field(
        None, description="What the model's digest must be."
    )
    allow_unsafe: bool = Field(
        False, description="Whether code inside a .keras file (a Lambda layer) may run."
    )
    signature: str = Field(
        models.ModelSpec.signature, description="Which one, of a SavedModel or .tflite file."
    )
    inputs: Annotated[
        dict[str, str],
        BeforeValidator(_mapped, json_schema_input_type=dict[str, str] | list[str]),
    ] = Field(
        default_factory=dict,
        description="Model input: column or image, where the names differ; a callable's inputs.",
    )
    outputs: list[str] = Field(
        default_factory=list, description="Which of several outputs to evaluate; all by default."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        sources = ("path", "callable", "predictions")
        given = [f"`{key}`" for key in sources if getattr(self, key) is not None]
        if not given:
            raise ValueError(
                f"model {self.name!r} needs one of `path` (a model), `callable` (a function) and "
                "`predictions` (a column)"
            )
        if len(given) > 1:
            raise ValueError(f"model {self.name!r} has {' and '.join(given)}: keep one")
        for key in ("sha256", "allow_unsafe", "signature"):
            if self.path is None and key in self.model_fields_set:
                raise ValueError(f"model {self.name!r} has no model file for `{key}` to be of")
        if self.predictions is not None and self.inputs:
            raise ValueError(f"model {self.name!r} has no inputs: `predictions` are made already")
        return self


class Edges(_Strict):
    """A numeric column, cut at these values."""

    key: str = Field(description="The column.")
    edges: list[FiniteFloat] | None = Field(
        None, min_length=1, description="Where bins begin, ascending."
    )
    quantiles: int | None = Field(None, ge=2, description="Into this many bins of equal size.")

    @model_validator(mode="after")
    def _one_way(self) -> Edges:
        if (self.edges is None) == (self.quantiles is None):
            raise ValueError(f"slice column {self.key!r} needs either `edges` or `quantiles`")
        if self.edges and sorted(set(self.edges)) != self.edges:
            raise ValueError(f"the edges of {self.key!r} must ascend, not {self.edges}")
        return self

    def term(self) -> slices.Term:
        """The slicing spec's term."""
        return slices.Term(self.key, edges=tuple(self.edges or ()), quantiles=self.quantiles)


def _key_kind(value: Any) -> str:
    return "[column]" if isinstance(value, str) else "[edges]"


Key = Annotated[
    Annotated[str, Tag("[column]")] | Annotated[Edges, Tag("[edges]")], Discriminator(_key_kind)
]


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("YAML reads yes, no, true and false as booleans: put the value in quotes")
    return value


class Values(_Strict):
    """Slices of given values, crossed with all values of `keys`."""

    values: dict[str, Annotated[str | int | float, BeforeValidator(_no_bool)]] = Field(
        min_length=1, description="column: value."
    )
    keys: list[Key] = Field(default_factory=list, description="Columns that they are crossed with.")


def _slice_kind(value: Any) -> str:
    if isinstance(value, dict):
        return "[values]" if "values" in value else "[edges]"
    return "[cross]"


# Told apart by their look, so that an error speaks of the way that was meant.
Slice = Annotated[
    Annotated[
        list[Key],
        BeforeValidator(_listed, json_schema_input_type=str | list[Key]),
        Tag("[cross]"),
    ]
    | Annotated[Edges, Tag("[edges]")]
    | Annotated[Values, Tag("[values]")],
    Discriminator(_slice_kind),
]


class Binarize(_Strict):
    """How a multi-class output is made binary, as in TFMA's MetricsSpec."""

    class_ids: list[int] = Field([], description="Each of these classes against all others.")
    k_list: list[int] = Field([], description="The k-th largest score alone.")
    top_k_list: list[int] = Field([], description="The k largest scores.")


class Aggregate(_Strict):
    """How a metric's classes are averaged, as in TFMA's MetricsSpec."""

    average: Literal["micro", "macro", "weighted_macro"] = Field(
        description="Of all classes' decisions together, of classes alike, or as often as they are."
    )
    class_weights: dict[int, float] = Field({}, description="The classes' weights, by class.")
    top_k_list: list[int] = Field([], description="Only of the scores that are among the largest.")


class Metric(_Strict):
    """A metric by its TFMA or Keras class name, or your own class of `module`."""

    class_name: str = Field(description="As TFMA or Keras call it, or as `module` does.")
    config: dict[str, Any] = Field(default_factory=dict, description="The class's arguments.")
    module: str = Field("", description="Where your own class is; left out: TFMA and Keras.")
    models: list[str] = Field([], description="The versions that it is for; left out: all.")
    outputs: list[str] = Field([], description="The outputs that it is for; left out: all.")
    binarize: Binarize = Field(Binarize(), description="Of some classes or scores, not all.")
    aggregate: Aggregate | None = Field(None, description="Classes averaged.")
    weighted: bool | None = Field(
        None, description="Whether example weights count; left out: where there are any."
    )

    def spec(self) -> plan.MetricSpec:
        """The same in the terms of the metrics' planner."""
        return plan.MetricSpec(
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
            class_weights=tuple(sorted(self.aggregate.class_weights.items()))
            if self.aggregate
            else (),
            weighted=self.weighted,
            native=True,
        )


def _named(value: Any) -> Any:
    return {"class_name": value} if isinstance(value, str) else value


class Confidence(_Strict):
    """How the examples are grouped for intervals and paired comparisons."""

    level: float = Field(0.95, gt=0, lt=1, description="How much intervals cover.")
    units: int = Field(50, ge=0, le=1000, description="Hash buckets of examples; 0: none.")
    seed: int = Field(7, description="Of what is drawn by chance.")


class Conversion(_Strict):
    """How far the metrics of a converted model may be from the original's."""

    good: FiniteFloat = Field(
        compare.Bounds.good, ge=0, description="Within this share of the original's value."
    )
    acceptable: FiniteFloat = Field(
        compare.Bounds.acceptable, ge=0, description="Within this share, but not good."
    )
    bad: FiniteFloat = Field(
        compare.Bounds.bad, ge=0, description="Worse by more than this; between is worse."
    )

    @model_validator(mode="after")
    def _ascending(self) -> Conversion:
        if not self.good <= self.acceptable <= self.bad:
            raise ValueError(
                "the bounds must ascend from good over acceptable to bad, not "
                f"{self.good}, {self.acceptable}, {self.bad}"
            )
        return self


class Config(_Strict):
    """An evaluation of model versions on labelled data."""

    name: str = Field(
        "evaluation", pattern=NAME, description="The run's; its results are called so."
    )
    task: Tasks | None = Field(
        None, description="Left out: inferred from the first batch; output: task for several."
    )
    data: Data = Field(description="What is evaluated.")
    models: list[Model] = Field(min_length=1, description="The versions that are compared.")
    eval_config: str | None = Field(
        None, description="A TFMA EvalConfig (pbtxt or JSON) in place of slices and metrics."
    )
    slices: list[Slice] = Field(
        default_factory=list,
        description="Beside the whole: columns, lists of columns that are crossed, or one value.",
    )
    metrics: Annotated[
        list[Annotated[Metric, BeforeValidator(_named, json_schema_input_type=str | Metric)]]
        | None,
        Field(min_length=1, description="Left out: those of the task."),
    ] = None
    thresholds: list[FiniteFloat] = Field(
        [0.5], min_length=1, description="Where confusion matrices are kept."
    )
    conversion: Conversion = Field(Conversion(), description="By what conversions are judged.")
    confidence: Confidence = Field(Confidence(), description="How sure results are.")
    output: str = Field("results", description="The folder or URL of all runs' results.")

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        names = [model.name for model in self.models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"model names must differ; {twice[0]!r} stands twice")
        baselines = [model.name for model in self.models if model.baseline]
        if len(baselines) > 1:
            raise ValueError(f"only one model may be the baseline, not {' and '.join(baselines)}")
        for model in self.models:
            if model.conversion_of is not None and model.conversion_of not in names:
                raise ValueError(
                    f"model {model.name!r}, conversion_of: "
                    + unknown("model", model.conversion_of, names)
                )
        self._check_conversions()
        if self.eval_config is not None and (self.slices or self.metrics is not None):
            raise ValueError("`eval_config` stands in place of `slices` and `metrics`: drop those")
        if self.eval_config is None and self.data.label is None:
            raise ValueError("data.label is missing: name the column that holds the label")
        return self

    def _check_conversions(self) -> None:
        """No version may be, over others, a conversion of itself."""
        originals = {model.name: model.conversion_of for model in self.models}
        for name in originals:
            chain = [name]
            while (original := originals[chain[-1]]) is not None:
                if original in chain:
                    loop = " of ".join(map(repr, [*chain, original]))
                    raise ValueError(f"conversions go in a circle: {loop}")
                chain.append(original)

    def slicing_specs(self) -> tuple[Spec, ...]:
        """The slicing specs, the overall one first, each once."""
        specs: list[Spec] = [()]
        for entry in self.slices:
            if isinstance(entry, Values):
                fixed = tuple(slices.Term(key, value=value) for key, value in entry.values.items())
                spec = fixed + tuple(_term(key) for key in entry.keys)
            elif isinstance(entry, Edges):
                spec = (entry.term(),)
            else:
                spec = tuple(_term(key) for key in entry)
            columns = [term.column for term in spec]
            if len(set(columns)) < len(columns):
                raise errors.ConfigError(f"slices: {entry} crosses a column with itself")
            if spec not in specs:
                specs.append(spec)
        return tuple(specs)


def _term(key: str | Edges) -> slices.Term:
    return slices.Term(key) if isinstance(key, str) else key.term()


def unknown(what: str, value: str, known: list[str]) -> str:
    """What is known instead of a value, the nearest first."""
    near = difflib.get_close_matches(value, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what} {value!r}; {hint}known are {', '.join(known)}"
