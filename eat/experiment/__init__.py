"""From a command line to a run: settings, folder, results."""
