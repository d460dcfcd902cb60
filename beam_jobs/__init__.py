"""The jobs a user starts: the command line, the configuration and the Beam pipelines."""
