"""# Search a folder by sound

The recordings of a folder that are most similar to a given one, by the cosine
similarity of their features, as `eat neighbors` does.

    python examples/nearest_neighbors.py MODEL RECORDING FOLDER
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

import eat
from eat.audio.io import AUDIO_SUFFIXES

checkpoint, recording, folder = sys.argv[1:]
model = eat.from_pretrained(checkpoint)

paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
options = {"pooling": "mean"}
# Files that cannot be read are skipped with a warning.
clips = [*model.encode_files(paths, on_error="skip", **options)]
gallery = torch.stack([clip.values for clip in clips])  # [M, D]
query = model.encode_file(recording, **options).values  # [D]

# Features of any two clips have much in common: what differs is around their mean.
mean = gallery.mean(dim=0)
similarity = F.cosine_similarity(gallery - mean, query - mean)  # [M]
best = similarity.topk(min(5, len(clips)))
for score, row in zip(best.values.tolist(), best.indices.tolist(), strict=True):
    print(f"{score:.3f}  {clips[row].path}")
