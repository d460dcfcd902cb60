"""The run's config: YAML and TFMA's EvalConfig to checked settings."""

from evalbeam.beam_jobs.config.load import load, locate, parse
from evalbeam.beam_jobs.config.settings import NAME, NAME_RULE, Config, Data, Model

__all__ = ["NAME", "NAME_RULE", "Config", "Data", "Model", "load", "locate", "parse"]
