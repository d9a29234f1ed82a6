"""One module per subcommand of ``eat``: `add_arguments(parser)` and `run(options)`.

A module imports torch inside `run` only, so that help and wrong options are quick.
"""
