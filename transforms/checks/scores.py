"""Whether each version's scores are what the metrics assume of them."""

from __future__ import annotations

from collections.abc import Mapping

from evalbeam.transforms import errors
from evalbeam.transforms.batch import Seen
from evalbeam.transforms.examples import scores
from evalbeam.transforms.examples.labels import Head
from evalbeam.transforms.metrics import statistics
from evalbeam.transforms.metrics.evaluation import Evaluation
from evalbeam.transforms.metrics.plan import Plan, plan


def check(
    evaluation: Evaluation,
    scales: Mapping[str, scores.Scale],
    seen: Mapping[str, Mapping[str, Seen]],
) -> list[str]:
    """Notes on scores, after what was seen of them, by version and output.

    Raises:
      ConfigError: some version's scores break what the metrics assume.
    """
    planned = plan(evaluation)
    problems, notes = [], []
    for version, outputs in seen.items():
        for head in evaluation.heads:
            if head.output not in outputs:
                continue
            problem, note = scores.judge(
                head,
                scales[version],
                outputs[head.output],
                by_scale=_depends_on_scale(planned, version, head),
            )
            of_output = f", output {head.output!r}" if head.output else ""
            if problem:
                problems.append(f"Version {version!r}{of_output}: {problem}")
            if note:
                notes.append(f"version {version!r}{of_output}: {note}")
    if problems:
        raise errors.ConfigError("\n".join(problems))
    return notes


def _depends_on_scale(planned: Plan, version: str, head: Head) -> bool:
    """Whether results depend on more than which of a row's scores is the largest."""
    if head.task != "multiclass" or planned.by_tfma:
        return True
    return any(
        metric.key.model == version
        and metric.key.output == head.output
        and not all(map(statistics.is_by_rank, metric.statistics))
        for metric in planned.metrics
    )
