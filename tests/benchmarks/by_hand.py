"""What a user would write by hand on stored predictions in memory: scikit-learn, or polars.

`python by_hand.py sklearn|polars DATA.parquet`: accuracy, precision and recall for all slices with
polars, and with scikit-learn the areas under the curves too.
"""

import sys

import reference


def sklearn(path: str) -> None:
    import pandas as pd
    from sklearn import metrics

    frame = pd.read_parquet(path)
    groups = [frame.groupby(lambda _: 0), *(frame.groupby(list(spec)) for spec in reference.SLICES)]
    for grouped in groups:
        for _, rows in grouped:
            label, score = rows["label"].to_numpy(), rows["score"].to_numpy()
            positive = score > 0.5
            metrics.confusion_matrix(label, positive)
            metrics.accuracy_score(label, positive)
            metrics.precision_score(label, positive)
            metrics.recall_score(label, positive)
            metrics.roc_auc_score(label, score)
            metrics.average_precision_score(label, score)
            metrics.log_loss(label, score)


def polars(path: str) -> None:
    import polars as pl

    frame = pl.read_parquet(path).with_columns(positive=pl.col("score") > 0.5)
    counts = [
        pl.len().alias("n"),
        (pl.col("positive") & (pl.col("label") == 1)).sum().alias("tp"),
        (pl.col("positive") & (pl.col("label") == 0)).sum().alias("fp"),
        (~pl.col("positive") & (pl.col("label") == 1)).sum().alias("fn"),
    ]
    frame.select(counts)
    for spec in reference.SLICES:
        frame.group_by(spec).agg(counts)


if __name__ == "__main__":
    {"sklearn": sklearn, "polars": polars}[sys.argv[1]](sys.argv[2])
