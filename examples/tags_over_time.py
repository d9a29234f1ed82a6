"""# Tags over time

The classes that a fine-tuned model detects in a recording, and when: the scores of
overlapping windows, below the spectrogram.

    python examples/tags_over_time.py MODEL RECORDING PICTURE.png

MODEL is a fine-tuned checkpoint, for instance the folder `model` of a fine-tuning run,
or the official authors' model fine-tuned on AudioSet.
"""

import sys

import matplotlib

import eat
from eat.audio.frontend import LogMel
from eat.audio.io import read_audio

matplotlib.use("Agg")
import matplotlib.pyplot as plt

checkpoint, recording, picture = sys.argv[1:]
model = eat.from_pretrained(checkpoint)
wav = read_audio(recording)  # [S] at 16 kHz
seconds = len(wav) / 16000

# Of the whole recording: the five most likely classes.
best = [tag.label for tag in model.tag_file(recording, top_k=5)]

# Of each window of 1 s, every 0.5 s: the scores of those classes.
num_classes = model.classifier.config["num_classes"]
window = min(1.0, model.max_seconds)
tags = model.tag_file(recording, top_k=num_classes, window=window, overlap=0.5)

figure, (upper, lower) = plt.subplots(
    2, 1, figsize=(9, 5), sharex=True, layout="constrained"
)
# A front end without normalization, as long as the recording.
spec = LogMel(mean=0.0, std=0.5, num_frames=max(1, len(wav) // 160))(wav[None])[0]
style = {"origin": "lower", "aspect": "auto", "cmap": "magma"}
upper.imshow(spec.T, extent=(0, seconds, 0, 128), **style)
upper.set_ylabel("mel bin")
for label in best:
    own = [tag for tag in tags if tag.label == label]
    centers = [(tag.start + tag.end) / 2 for tag in own]
    lower.plot(centers, [tag.score for tag in own], marker="o", label=label)
lower.set(xlabel="time (s)", ylabel="score", xlim=(0, seconds), ylim=(0, None))
lower.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
figure.savefig(picture, dpi=150)
print(f"Written: {picture}")
