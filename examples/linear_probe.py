"""# A classifier on frozen features

Features of labeled recordings are the input of a linear classifier of scikit-learn: no
training of the network, minutes on a CPU. FOLDER has a folder for each class.

    python examples/linear_probe.py MODEL FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import eat

checkpoint, folder = sys.argv[1:]
model = eat.from_pretrained(checkpoint)

paths = sorted(Path(folder).glob("*/*"))
labels = np.array([path.parent.name for path in paths])
# The mean of the patches says more about short sounds than the CLS token does.
clips = model.encode_files(paths, pooling="mean")
features = np.stack([clip.numpy() for clip in clips])  # [M, D]

probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
scores = cross_val_score(probe, features, labels, cv=3)
print(f"{len(paths)} recordings, {len(set(labels))} classes")
print(f"accuracy {scores.mean():.3f} (chance {1 / len(set(labels)):.3f})")
