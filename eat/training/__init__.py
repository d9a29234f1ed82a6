"""SpeechBrain mechanics: the Brains' common ground, schedules, checkpoints, runs."""
