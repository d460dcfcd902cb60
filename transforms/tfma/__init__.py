"""Everything specific to TFMA: its EvalConfig, metric classes, evaluators and result files."""
