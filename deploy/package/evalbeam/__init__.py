"""Distributed evaluation of model versions: `evalbeam run CONFIG`.

The repository's folders `beam_jobs/` and `transforms/` are symbolic links next to this file, so
that they install as one package: `transforms/batch.py` is `evalbeam.transforms.batch`.
"""

import importlib.util

# Without symbolic links, Git writes text files instead, which can still be installed.
if importlib.util.find_spec("evalbeam.beam_jobs") is None:
    raise ImportError(
        f"{__path__[0]} lacks beam_jobs and transforms: in the repository they are symbolic links. "
        "Restore them in the clone (`git config core.symlinks true`, then `git checkout -- "
        "deploy/package`), or unpack the archive with a program that keeps links; install again"
    )
