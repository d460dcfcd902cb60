"""Assigns examples to slices, as integer codes, with TFMA's semantics.

An example belongs to one slice of a spec for each combination of its values in the spec's columns:
a multi-valued feature gives one slice per distinct value, a missing or empty one none (TFMA's
`slicer_lib.get_slices_for_features_dicts`).
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evalbeam.transforms import batch, errors

Value = str | int | float
Period = Literal["year", "month", "week", "day", "weekday"]
# The texts of periods, as of strftime; weeks are those of ISO 8601.
_PERIODS: dict[Period, str] = {
    "year": "%Y",
    "month": "%Y-%m",
    "week": "%G-W%V",
    "day": "%Y-%m-%d",
    "weekday": "%A",
}
_EXACT = 2.0**53  # whole floats below this are exact integers
_INT64 = 2**63
_NUMERIC = tuple("-0123456789")  # the first characters of a number's shortest text

# Up to this many combinations of values, a spec's slices are looked up in a dense table.
_LOOKUP_CELLS = 1 << 22


@dataclass(frozen=True)
class SliceKey:
    """A slice of a split: sorted (column, value) pairs; none of them is the whole split.

    >>> str(SliceKey("eval"))
    'overall'
    >>> str(SliceKey("eval", (("health", "good"), ("limited", 1))))
    'health=good;limited=1'
    >>> print(SliceKey("eval", (("plan", "a=b;c"),)))
    plan=a\\=b\\;c
    """

    split: str
    pairs: tuple[tuple[str, Value], ...] = ()

    def __str__(self) -> str:
        """`overall`, or `health=good;limited=1` with `;`, `=` and `\\` escaped by `\\`."""
        if not self.pairs:
            return "overall"
        return ";".join(
            f"{key.translate(_ESCAPED)}={str(value).translate(_ESCAPED)}"
            for key, value in self.pairs
        )


_ESCAPED = str.maketrans({character: "\\" + character for character in "\\;="})


def canonical(value: Value) -> Value:
    """The one value of all spellings of a number; other text is itself.

    A column may be text in one file and numbers in the next, and a slice is still one slice, on
    whichever worker it is met first. So the text alone decides what the value is.

    >>> [canonical(value) for value in (1, 1.0, "1", "1.0", "0.5")]
    [1, 1, 1, 1, 0.5]
    >>> [canonical(value) for value in ("007", "1.00", "good")]
    ['007', '1.00', 'good']
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    if isinstance(value, int):
        return value if abs(value) < _INT64 else str(value)
    if isinstance(value, str) and value[:1] not in _NUMERIC:
        return value
    for parse in (int, float):
        with contextlib.suppress(ValueError):
            if str(number := parse(value)) == value and math.isfinite(number):
                return canonical(number)
    return value


@dataclass(frozen=True)
class Term:
    """One column of a slicing spec.

    Attributes:
      column: the feature.
      value: if set, only examples with this value (compared as text or as a number).
      edges: if set, the column is numeric and its values fall into the bins (-inf, e0),
        [e0, e1), ..., [en, inf).
      quantiles: if set, the number of bins of equal size, whose `edges` are yet to be computed.
      by: if set, the column holds dates or times, and its values are their days, months, ...
    """

    column: str
    value: Value | None = None
    edges: tuple[float, ...] = ()
    quantiles: int | None = None
    by: Period | None = None

    def __str__(self) -> str:
        """The term as shown in plans and manifests."""
        if self.value is not None:
            return f"{self.column}={self.value}"
        if self.edges:
            return f"{self.column} cut at {', '.join(f'{edge:g}' for edge in self.edges)}"
        if self.by:
            return f"{self.column} by {self.by}"
        return f"{self.column} in {self.quantiles} quantiles" if self.quantiles else self.column

    def bins(self) -> tuple[str, ...]:
        """The bins' names, in order."""
        if not self.edges:
            return ()
        texts = [_format_edge(edge) for edge in self.edges]
        inner = [f"[{low}, {high})" for low, high in itertools.pairwise(texts)]
        return (f"(-inf, {texts[0]})", *inner, f"[{texts[-1]}, inf)")


def _format_edge(edge: float) -> str:
    """25 for 25.0, and always enough digits to be exact."""
    short = f"{edge:g}"
    return short if float(short) == edge else repr(float(edge))


Spec = tuple[Term, ...]


@dataclass(frozen=True)
class Members:
    """Which examples of a batch are in which slices: row `rows[i]` is in slice `ids[i]`.

    `rows` is None if entry i is row i, the usual case, which saves a gather.
    """

    rows: np.ndarray | None
    ids: np.ndarray


@dataclass
class Encoder:
    """Numbers the slices that it encounters, and finds the slices of each batch's examples.

    The numbers are in order of first appearance and are only valid within this encoder.
    """

    specs: Sequence[Spec]
    keys: list[SliceKey] = field(default_factory=list)
    _ids: dict[SliceKey, int] = field(default_factory=dict)
    _vocabularies: dict[Term, _Vocabulary] = field(default_factory=dict)
    _lookups: dict[tuple[str, Spec], _Lookup] = field(default_factory=dict)

    def encode(self, examples: batch.Batch) -> list[Members]:
        """The members of all specs' slices; no example appears twice in the same slice."""
        groups: dict[tuple[str, ...], list[Members]] = {}
        columns: dict[Term, _Codes] = {}
        for spec in self.specs:
            for term in spec:
                if term not in columns:
                    columns[term] = self._vocabulary(term).encode(examples)
            names = tuple(sorted(term.column for term in spec))
            rows, codes = _cross(len(examples), [columns[term] for term in spec])
            ids = self._lookup(examples.shard.split, spec).ids(codes)
            groups.setdefault(names, []).append(Members(rows, ids))
        # Only specs over the same columns can name the same slice.
        return [
            group[0] if len(group) == 1 else _merge_members(group, len(examples))
            for group in groups.values()
        ]

    def intern(self, key: SliceKey) -> int:
        """The slice's number."""
        number = self._ids.setdefault(key, len(self.keys))
        if number == len(self.keys):
            self.keys.append(key)
        return number

    def _vocabulary(self, term: Term) -> _Vocabulary:
        if term not in self._vocabularies:
            self._vocabularies[term] = _Vocabulary(term)
        return self._vocabularies[term]

    def _lookup(self, split: str, spec: Spec) -> _Lookup:
        if (split, spec) not in self._lookups:
            self._lookups[split, spec] = _Lookup(self, split, spec)
        return self._lookups[split, spec]


@dataclass(frozen=True)
class _Codes:
    """A column's values: row i has the distinct codes `codes[offsets[i]:offsets[i + 1]]`."""

    offsets: np.ndarray | None  # None: one value per row
    codes: np.ndarray


@dataclass
class _Vocabulary:
    """A term's values, numbered in order of appearance.

    `_seen` maps values as they are in the data to codes, by Arrow type: 1, 1.0 and True are the
    same dict key, but may be different slices.
    """

    term: Term
    values: list[Value] = field(default_factory=list)
    _codes: dict[Value, int] = field(default_factory=dict)
    _seen: dict[pa.DataType, dict[object, int]] = field(default_factory=dict)
    _wanted: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in self.term.bins():
            self._code(name)

    def _code(self, value: Value) -> int:
        code = self._codes.setdefault(value, len(self.values))
        if code == len(self.values):
            self.values.append(value)
            if self.term.value is not None:
                self._wanted.append(value == canonical(self.term.value))
        return code

    def encode(self, examples: batch.Batch) -> _Codes:
        if self.term.column not in examples.columns.schema.names:
            return _Codes(np.zeros(len(examples) + 1, np.int64), np.zeros(0, np.int64))
        offsets, flat = _flatten(examples.columns.column(self.term.column))
        if self.term.edges:
            codes = self._bin(flat, examples)
        else:
            encoded = flat if pa.types.is_dictionary(flat.type) else flat.dictionary_encode()
            dictionary = encoded.dictionary
            if self.term.by is not None:
                dictionary = _periods(dictionary, self.term.by, examples, self.term.column)
            # -1: an empty text where a date should be, which is a missing value.
            dictionary_codes = np.full(len(dictionary), -1, np.int64)
            valid = dictionary.is_valid()
            dictionary_codes[valid.to_numpy(zero_copy_only=False)] = self._encode_dictionary(
                dictionary.filter(valid)
            )
            codes = dictionary_codes[encoded.indices.to_numpy(zero_copy_only=False)]
            offsets, codes = _keep(offsets, codes, codes >= 0)
        if self.term.value is not None:
            offsets, codes = _keep(offsets, codes, np.array(self._wanted, bool)[codes])
        if offsets is not None and len(codes) and np.diff(offsets).max() > 1:
            offsets, codes = _dedupe(offsets, codes, len(self.values))
        return _Codes(offsets, codes)

    def _encode_dictionary(self, dictionary: pa.Array) -> np.ndarray:
        """The codes of distinct values, int64."""
        seen = self._seen.setdefault(dictionary.type, {})
        raw = dictionary.to_numpy(zero_copy_only=False).tolist()
        codes = list(map(seen.get, raw))
        if None in codes:
            new = [i for i, code in enumerate(codes) if code is None]
            for i, value in zip(new, _values(dictionary.take(pa.array(new))), strict=True):
                codes[i] = seen[raw[i]] = self._code(value)
        return np.array(codes, np.int64)

    def _bin(self, flat: pa.Array, examples: batch.Batch) -> np.ndarray:
        numbers = _as_numbers(flat, examples, self.term.column)
        return np.searchsorted(np.asarray(self.term.edges), numbers, side="right")


@dataclass
class _Lookup:
    """Maps combinations of a spec's codes to slice ids."""

    encoder: Encoder
    split: str
    spec: Spec
    _shape: tuple[int, ...] = ()
    _table: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    _ids: dict[tuple[int, ...], int] = field(default_factory=dict)

    def ids(self, codes: np.ndarray) -> np.ndarray:
        """Slice ids, int64[M], of combinations int64[terms, M]."""
        if not codes.shape[1]:
            return np.zeros(0, np.int64)
        if not self.spec:
            return np.full(codes.shape[1], self.encoder.intern(SliceKey(self.split)))
        sizes = [len(self.encoder._vocabulary(term).values) for term in self.spec]
        # Rounded up to powers of two, as vocabularies grow with every batch at first.
        shape = tuple(1 << (size - 1).bit_length() for size in sizes)
        if math.prod(shape) > _LOOKUP_CELLS:
            combinations, inverse = np.unique(codes, axis=1, return_inverse=True)
            return self._intern(combinations)[inverse.reshape(-1)]
        if shape != self._shape:
            self._shape = shape
            self._table = np.full(math.prod(shape), -1, np.int64)
            if self._ids:
                combinations = np.array(list(self._ids)).T
                cells = np.ravel_multi_index(tuple(combinations), shape)
                self._table[cells] = list(self._ids.values())
        flat = np.ravel_multi_index(tuple(codes), shape)
        ids = self._table[flat]
        if (new := ids < 0).any():
            cells = distinct(flat[new])
            self._table[cells] = self._intern(np.stack(np.unravel_index(cells, shape)))
            ids = self._table[flat]
        return ids

    def _intern(self, combinations: np.ndarray) -> np.ndarray:
        order = sorted(range(len(self.spec)), key=lambda i: self.spec[i].column)
        terms = [
            (i, self.spec[i].column, self.encoder._vocabulary(self.spec[i]).values) for i in order
        ]
        ids = []
        for combination in map(tuple, combinations.T.tolist()):
            if combination not in self._ids:
                pairs = tuple([(column, values[combination[i]]) for i, column, values in terms])
                self._ids[combination] = self.encoder.intern(SliceKey(self.split, pairs))
            ids.append(self._ids[combination])
        return np.array(ids, np.int64)


def numbers(examples: batch.Batch, column: str) -> tuple[np.ndarray | None, np.ndarray]:
    """A numeric column's values, float64[M], after their rows, int64[M] (None: one per row).

    Raises:
      DataError: the values are not numbers.
    """
    if column not in examples.columns.schema.names:
        return np.zeros(0, np.int64), np.zeros(0)
    offsets, flat = _flatten(examples.columns.column(column))
    rows = None if offsets is None else np.repeat(np.arange(len(examples)), np.diff(offsets))
    return rows, _as_numbers(flat, examples, column)


def _as_numbers(flat: pa.Array, examples: batch.Batch, column: str) -> np.ndarray:
    try:
        return _parse_numbers(flat).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
        texts = _to_texts(flat)
        row, value = _find_bad(texts, _parse_numbers, examples, column)
        raise errors.DataError(
            f"{row}: slice column {column!r} has edges or quantiles, but {value!r} is not a number"
        ) from e


def _parse_numbers(values: pa.Array) -> pa.Array:
    # Not safe: an integer beyond 2^53 is rounded, which no realistic edge would notice.
    return values.cast(pa.float64(), safe=False)


def check_dates(examples: batch.Batch, column: str, by: Period) -> None:
    """Raises DataError if the column does not hold dates."""
    if column in examples.columns.schema.names:
        _, flat = _flatten(examples.columns.column(column))
        if pa.types.is_dictionary(flat.type):
            flat = flat.dictionary_decode()
        _periods(flat, by, examples, column)


def _periods(dates: pa.Array, by: Period, examples: batch.Batch, column: str) -> pa.Array:
    """The dates' years, months, ..., as text; times with a zone are in that zone, texts in UTC.

    An empty text is null.
    """
    if not pa.types.is_temporal(dates.type):
        texts = _to_texts(dates)
        try:
            dates = _parse_dates(texts)
        except pa.ArrowInvalid as e:
            row, value = _find_bad(texts, _parse_dates, examples, column)
            raise errors.DataError(
                f"{row}: slice column {column!r} is by {by}, but {value!r} is not a date or time; "
                "those of ISO 8601 are read, such as 2026-11-26, 20261126 or 2026-11-26T08:30:00Z"
            ) from e
    elif pa.types.is_timestamp(dates.type) and dates.type.tz is not None:
        dates = pc.local_timestamp(dates)
    try:
        return pc.strftime(dates.cast(pa.timestamp("us"), safe=False), format=_PERIODS[by])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
        raise errors.DataError(
            f"{examples.shard}: slice column {column!r} is by {by}, but holds {dates.type}, not "
            f"dates: {e}"
        ) from e


def _to_texts(values: pa.Array) -> pa.Array:
    """Values as text, 20261126.0 as 20261126: whole numbers with missing ones may be fractions."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type):
        with contextlib.suppress(pa.ArrowInvalid):
            values = values.cast(pa.int64())
    return values.cast(pa.string(), safe=False)


# Spellings of dates and times that Arrow does not read, and how it does. Seconds' fractions make no
# difference to a day.
_SPELLINGS = (
    (r"^\s+|\s+$", ""),
    (r"^(\d{4})(\d{2})(\d{2})($|T)", r"\1-\2-\3\4"),
    (r"^([-\d]{10}T\d{2})(\d{2})(\d{2})", r"\1:\2:\3"),
    (r"(:\d{2})[.,]\d+", r"\1"),
    (r"(\d) ?(?:UTC|[Zz])$", r"\1Z"),
    (r"(:\d{2}) ([-+]\d{2})", r"\1\2"),
)
_OFFSET = r"\dZ$|\d[-+]\d{2}:?\d{2}$|:\d{2}[-+]\d{2}$"


def _parse_dates(texts: pa.Array) -> pa.Array:
    """ISO 8601 texts as timestamps, in UTC if they have an offset; null if they are empty.

    Raises:
      ArrowInvalid: a text is something else.
    """
    for pattern, replacement in _SPELLINGS:
        texts = pc.replace_substring_regex(texts, pattern=pattern, replacement=replacement)
    texts = pc.if_else(pc.equal(texts, ""), None, texts)
    has_offset = pc.match_substring_regex(texts, _OFFSET)
    return pc.if_else(
        has_offset,
        pc.if_else(has_offset, texts, "1970-01-01T00:00:00Z")
        .cast(pa.timestamp("us", "UTC"))
        .cast(pa.timestamp("us")),
        pc.if_else(has_offset, "1970-01-01", texts).cast(pa.timestamp("us")),
    )


def _find_bad(
    texts: pa.Array,
    parse: Callable[[pa.Array], pa.Array],
    examples: batch.Batch,
    column: str,
) -> tuple[str, str]:
    """The first of a column's texts that cannot be parsed, after the first row that holds it."""
    first, end = 0, len(texts)
    while end - first > 1:
        middle = (first + end) // 2
        try:
            parse(texts[first:middle])
            first = middle
        except pa.ArrowInvalid:
            end = middle
    offsets, flat = _flatten(examples.columns.column(column))
    place = pc.index(_to_texts(flat), texts[first]).as_py()
    row = place if offsets is None else np.searchsorted(offsets, place, side="right") - 1
    value = texts[first].cast(pa.binary()).as_py().decode(errors="backslashreplace")
    return examples.name_row(int(row)), value


def distinct(values: np.ndarray) -> np.ndarray:
    """The distinct values of non-negative int64, sorted; np.unique hashes, which is far slower."""
    values = np.sort(values, kind="stable")
    return values[np.diff(values, prepend=-1) > 0]


def describe(spec: Spec) -> str:
    """A slicing spec as shown in plans and manifests."""
    return " x ".join(map(str, spec)) or "overall"


def is_of(key: SliceKey, spec: Spec) -> bool:
    """Whether a slice is one of a spec's, whose terms are columns or values of columns.

    >>> key = SliceKey("eval", (("age", 5), ("plan", "a")))
    >>> is_of(key, (Term("age", "5"), Term("plan"))), is_of(key, (Term("plan"),))
    (True, False)
    """
    terms = sorted(spec, key=lambda term: term.column)
    return len(terms) == len(key.pairs) and all(
        column == term.column and (term.value is None or canonical(term.value) == value)
        for term, (column, value) in zip(terms, key.pairs, strict=True)
    )


def columns(specs: Iterable[Spec]) -> tuple[str, ...]:
    """The columns that the specs read, sorted."""
    return tuple(sorted({term.column for spec in specs for term in spec}))


def _flatten(column: pa.Array) -> tuple[np.ndarray | None, pa.Array]:
    """Each row's offsets into the non-missing values (None: one per row), and these values."""
    size = len(column)
    if pa.types.is_nested(column.type):
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        rows = np.repeat(np.arange(size), lengths)
        flat = pc.list_flatten(column)
    else:
        rows, flat = np.arange(size), column
    if pa.types.is_dictionary(flat.type) and not _is_vocabulary(flat):
        flat = flat.dictionary_decode()
    valid = pc.is_valid(flat)
    if pa.types.is_floating(flat.type):
        valid = pc.and_(valid, pc.invert(pc.fill_null(pc.is_nan(flat), False)))
    mask = valid.to_numpy(zero_copy_only=False)
    if not mask.all():
        flat, rows = flat.filter(valid), rows[mask]
    if len(rows) == size and (rows == np.arange(size)).all():
        return None, flat
    return np.searchsorted(rows, np.arange(size + 1)), flat


def _is_vocabulary(column: pa.DictionaryArray) -> bool:
    """Whether the dictionary saves work: not for numbers, nor if most of its entries are unused."""
    kind = column.type.value_type
    return not pa.types.is_primitive(kind) and len(column.dictionary) <= len(column)


def _values(dictionary: pa.Array) -> list[Value]:
    """Slice values as in TFMA's slice keys: bytes as UTF-8 text, booleans as integers."""
    values = dictionary.to_pylist()
    kind = dictionary.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        values = [value.decode("utf-8", errors="backslashreplace") for value in values]
    elif pa.types.is_boolean(kind):
        values = [int(value) for value in values]
    elif pa.types.is_float32(kind):
        # The shortest digits that identify the 32-bit value: 0.1, not 0.10000000149011612.
        values = [float(str(np.float32(value))) for value in values]
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        values = [str(value) for value in values]
    return [canonical(value) for value in values]


def _keep(
    offsets: np.ndarray | None, codes: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray]:
    if mask.all():
        return offsets, codes
    before = np.concatenate([[0], np.cumsum(mask)])
    return (before if offsets is None else before[offsets]), codes[mask]


def _dedupe(offsets: np.ndarray, codes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Each row's distinct codes."""
    rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    rows, codes = np.divmod(distinct(rows * size + codes), size)
    return np.searchsorted(rows, np.arange(len(offsets))), codes


def _cross(size: int, columns: Sequence[_Codes]) -> tuple[np.ndarray | None, np.ndarray]:
    """Rows and codes[terms, M] of all combinations of the columns' values within each row."""
    if all(column.offsets is None for column in columns):
        stacked = [column.codes for column in columns]
        return None, np.stack(stacked) if stacked else np.zeros((0, size), np.int64)
    rows = np.arange(size)
    crossed: list[np.ndarray] = []
    for column in columns:
        offsets = np.arange(size + 1) if column.offsets is None else column.offsets
        repeats = np.diff(offsets)[rows]
        ends = np.cumsum(repeats)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - repeats, repeats)
        rows = np.repeat(rows, repeats)
        crossed = [np.repeat(codes, repeats) for codes in crossed]
        crossed.append(column.codes[offsets[rows] + within])
    return rows, np.stack(crossed)


def _merge_members(group: Sequence[Members], size: int) -> Members:
    """The union: an example counts once in a slice, even if two specs name that slice."""
    rows = np.concatenate([np.arange(size) if m.rows is None else m.rows for m in group])
    ids = np.concatenate([m.ids for m in group])
    width = int(ids.max(initial=0)) + 1
    rows, ids = np.divmod(distinct(rows * width + ids), width)
    return Members(rows, ids)
