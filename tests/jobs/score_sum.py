"""A user's metric in TFMA's terms, without a kernel: jobs copy this file beside their config."""

import apache_beam as beam
import tensorflow_model_analysis as tfma


class _Sum(beam.CombineFn):
    def __init__(self, key):
        self.key = key

    def create_accumulator(self):
        return 0.0

    def add_input(self, total, element):
        return total + float(element.prediction[self.key.model_name].item())

    def merge_accumulators(self, totals):
        return sum(totals)

    def extract_output(self, total):
        return {self.key: total}


def _computations(model_names=("",), name="score_sum", **_):
    keys = [tfma.metrics.MetricKey(name, model_name=m, example_weighted=False) for m in model_names]
    return [
        tfma.metrics.MetricComputation(keys=[k], preprocessors=None, combiner=_Sum(k)) for k in keys
    ]


class ScoreSum(tfma.metrics.Metric):
    def __init__(self, name="score_sum"):
        super().__init__(_computations, name=name)
