"""Keep SpeechBrain's routine messages off the console."""

from __future__ import annotations

import logging

# Besides these, its epoch counter and its warnings remain on the console.
DEMOTED = ("core", "utils.quirks", "utils.train_logger")


def quiet_speechbrain() -> None:
    """Demote routine messages to the debug level: they go to ``log.txt`` only.

    Must be called before SpeechBrain's train logger is imported: without torchvision it
    warns that it cannot save figures, which nothing here asks it to do.
    """
    for name in DEMOTED:
        logging.getLogger(f"speechbrain.{name}").addFilter(_demote)


def _demote(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    routine = record.levelno == logging.INFO and "Model Statistics" not in message
    if routine or "torchvision" in message:
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
    return True
