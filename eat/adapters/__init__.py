"""EAT in benchmark suites: each module here has the interface that one suite asks for.

- ``hear``: HEAR 2021, `hear-validator` and `tools/run_hear.py`
- ``mteb``: MAEB, the audio tasks of MTEB
- ``xares``: X-ARES
- ``s3prl``: SUPERB
- ``evar``: EVAR

The suites themselves are not dependencies of the toolkit. How to get a score from each
is in ``docs/benchmarks.md``.
"""
