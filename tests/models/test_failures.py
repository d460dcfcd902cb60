"""What TensorFlow's parsers raise becomes a sentence; their wording may change."""

import pytest

from evalbeam.transforms.models import failures


def parse(features, values):
    import tensorflow as tf

    example = tf.train.Example(features=tf.train.Features(feature=values))
    return tf.io.parse_example([example.SerializeToString()], features)


def parse_sequence(context, steps):
    import tensorflow as tf

    lists = {name: tf.train.FeatureList(feature=[value]) for name, value in steps.items()}
    example = tf.train.SequenceExample(
        context=tf.train.Features(feature=context),
        feature_lists=tf.train.FeatureLists(feature_list=lists),
    )
    return tf.io.parse_sequence_example(
        [example.SerializeToString()],
        {"age": tf.io.FixedLenFeature([], tf.float32)},
        {"x": tf.io.FixedLenSequenceFeature([], tf.float32)},
    )


def test_failures_of_parsers_are_sentences():
    import tensorflow as tf

    def floats(*values):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    whole = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
    pair = {"age": tf.io.FixedLenFeature([2], tf.float32)}
    open_size = {"age": tf.io.RaggedFeature(tf.float32)}
    not_float = "'age' of the example is not float, which the signature takes"
    cases = [
        (parse, pair, {}, "the example has no 'age', which the signature requires"),
        (parse, pair, {"age": whole}, not_float),
        (parse, open_size, {"age": whole}, not_float),
        (
            parse,
            pair,
            {"age": floats(1)},
            "the example has 1 values of 'age', but the signature takes the shape [2]",
        ),
        (
            parse_sequence,
            {},
            {"x": floats(1)},
            "the example has 0 values of 'age', but the signature takes 1",
        ),
        (
            parse_sequence,
            {"age": floats(1)},
            {},
            "the example has no 'x', which the signature requires",
        ),
        (parse_sequence, {"age": whole}, {"x": floats(1)}, not_float),
        (
            parse_sequence,
            {"age": floats(1)},
            {"x": whole},
            "'x' of the example is not float, which the signature takes",
        ),
    ]
    for function, *arguments, sentence in cases:
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            function(*arguments)
        assert failures.explain(caught.value) == sentence


def test_other_failures_are_without_nodes_and_stacks():
    import tensorflow as tf

    @tf.function
    def fail(x):
        tf.debugging.assert_positive(x, message="prices are positive")
        return x

    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        fail(tf.constant([-1.0]))
    text = failures.explain(caught.value)
    assert text.startswith("InvalidArgumentError: ")
    assert "prices are positive" in text
    assert "\n" not in text
    assert "{{" not in text
    assert "[Op:" not in text
