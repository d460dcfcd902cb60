"""What one would write by hand on stored predictions: `python by_hand.py LIBRARY PARQUET`.

Everything in memory: for all examples and each slice of the reference job the count, accuracy,
precision, recall, AUC, average precision and log loss; no plots, one version.
"""

import sys

import reference


def with_sklearn(path: str) -> None:
    """pandas and scikit-learn: a call of each metric for each group."""
    import pandas as pd
    from sklearn import metrics

    def evaluate(rows: pd.DataFrame) -> dict[str, float]:
        label, score = rows["label"].to_numpy(), rows["score"].to_numpy()
        decided = score > 0.5
        return {
            "count": len(rows),
            "accuracy": metrics.accuracy_score(label, decided),
            "precision": metrics.precision_score(label, decided),
            "recall": metrics.recall_score(label, decided),
            "auc": metrics.roc_auc_score(label, score),
            "auc_pr": metrics.average_precision_score(label, score),
            "log_loss": metrics.log_loss(label, score),
        }

    examples = pd.read_parquet(path)
    evaluate(examples)
    for spec in reference.SLICES:
        for _, rows in examples.groupby(list(spec)):
            evaluate(rows)


def with_polars(path: str) -> None:
    """polars: one lazy aggregation for each slicing; AUC by ranks, average precision by sorting."""
    import polars as pl

    label, score = pl.col("label"), pl.col("score").cast(pl.Float64)
    decided = score > 0.5
    positives = label.sum()
    ranked = score.rank() * label
    auc = (ranked.sum() - positives * (positives + 1) / 2) / (positives * (pl.len() - positives))
    hits = label.sort_by(score, descending=True).cum_sum()
    found = label.sort_by(score, descending=True)
    precision_at = hits / pl.int_range(1, pl.len() + 1)
    right = (decided & (label == 1)).sum()
    numbers = [
        pl.len().alias("count"),
        (decided == (label == 1)).mean().alias("accuracy"),
        (right / decided.sum()).alias("precision"),
        (right / positives).alias("recall"),
        auc.alias("auc"),
        ((precision_at * found).sum() / positives).alias("auc_pr"),
        (-(label * score.log() + (1 - label) * (1 - score).log())).mean().alias("log_loss"),
    ]
    examples = pl.read_parquet(path)
    examples.select(numbers)
    for spec in reference.SLICES:
        examples.lazy().group_by(spec).agg(numbers).collect()


if __name__ == "__main__":
    {"sklearn": with_sklearn, "polars": with_polars}[sys.argv[1]](sys.argv[2])
