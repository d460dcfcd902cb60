"""An evaluation is data: it comes back from JSON, and equal ones have equal plans."""

import hypothesis
import metric_cases
from hypothesis import strategies as st

from evalbeam.transforms.examples import labels, slices
from evalbeam.transforms.metrics import plan
from evalbeam.transforms.metrics.evaluation import Bounds, Evaluation, MetricSpec, Pair

TEXTS = st.text(st.characters(), max_size=8)  # surrogates too
FLOATS = st.floats(allow_nan=False)  # infinite edges too
VALUES = st.one_of(TEXTS, st.integers(-(2**63), 2**63), FLOATS)
TERMS = st.builds(
    slices.Term,
    TEXTS,
    st.none() | VALUES,
    st.lists(FLOATS, max_size=3).map(tuple),
    st.none() | st.integers(2, 9),
)
SPECS = st.builds(
    MetricSpec,
    class_name=TEXTS,
    config=TEXTS,
    class_ids=st.lists(st.integers(0, 9), max_size=2).map(tuple),
    class_weights=st.lists(st.tuples(st.integers(0, 9), FLOATS), max_size=2).map(tuple),
    weighted=st.none() | st.booleans(),
)
EVALUATIONS = st.builds(
    Evaluation,
    models=st.lists(TEXTS, min_size=1, max_size=3).map(tuple),
    heads=st.tuples(
        st.builds(labels.Head, TEXTS, TEXTS, st.sampled_from(["binary", "multiclass"]))
    ),
    metrics=st.lists(SPECS, max_size=2).map(tuple),
    thresholds=st.lists(FLOATS, min_size=1, max_size=3).map(tuple),
    baseline=st.none() | TEXTS,
    pairs=st.lists(
        st.builds(Pair, TEXTS, TEXTS, st.none() | st.builds(Bounds, FLOATS)), max_size=2
    ).map(tuple),
    slices=st.lists(st.lists(TERMS, max_size=2).map(tuple), max_size=3).map(tuple),
    weight=st.none() | TEXTS,
)


@hypothesis.given(EVALUATIONS)
def test_an_evaluation_comes_back_from_json(evaluation):
    text = evaluation.to_json()
    assert text.isascii()
    back = Evaluation.from_json(text)
    assert back == evaluation
    assert repr(back) == repr(evaluation)  # 1 is not 1.0, nor -0.0 0.0


def test_the_plan_of_a_saved_evaluation_is_that_of_the_run():
    for name, data in metric_cases.DATA.items():
        cases = [case for case in metric_cases.CASES if case.data == name]
        specs = [
            case.metric_spec(None if case.class_name == "BooleanFlipRates" else f"case {i}")
            for i, case in enumerate(cases)
        ]
        evaluation = metric_cases.evaluation(data, specs, [("base", "cand")])
        first = plan.plan(evaluation)
        plan.plan.cache_clear()
        second = plan.plan(Evaluation.from_json(evaluation.to_json()))
        assert first is not second
        assert [metric.key for metric in second.metrics] == [m.key for m in first.metrics]
        assert second.statistics == first.statistics
        assert second.by_tfma == first.by_tfma
        assert (second.confusions, second.flips) == (first.confusions, first.flips)
        assert second.conversions == first.conversions
