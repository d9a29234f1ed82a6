"""From a command line to a run: settings, experiment folder, results."""
