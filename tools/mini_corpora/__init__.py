"""Small corpora of real recordings in the layouts of AudioSet, ESC-50, Speech Commands.

``bank`` reads the recordings in ``tools/bank``, ``scenes`` mixes them, ``audioset``,
``esc50`` and ``speech_commands`` plan one corpus each, ``writing`` writes a planned
corpus, and ``corpora`` makes all three.
"""
