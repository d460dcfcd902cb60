"""Distributed evaluation of model versions: `evalbeam run CONFIG`.

Its parts are the repository's folders `beam_jobs/` and `transforms/`, which are links beside this
file: what is installed is one package, and `transforms/batch.py` is `evalbeam.transforms.batch`.
"""
