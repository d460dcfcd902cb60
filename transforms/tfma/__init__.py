"""All that knows TFMA: its EvalConfig, its metric classes, its evaluators and its result files."""
