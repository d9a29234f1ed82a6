"""# Features of a file

From a recording to features, with any checkpoint: a model folder of this toolkit, an
official `.pt` file, or a Hugging Face folder of the official authors. The recording may
have any format, sample rate, number of channels and length.

    python examples/file_features.py MODEL RECORDING
"""

import sys

import eat

checkpoint, recording = sys.argv[1:]
model = eat.from_pretrained(checkpoint)

# One vector for the recording: the CLS token of the last layer.
features = model.encode_file(recording)
print("clip:", tuple(features.values.shape))  # [D]

# One vector for each 160 ms, from two layers. In linear probes of published EAT models,
# a layer in the middle is often better than the last.
middle = len(model.encoder.blocks) // 2
frames = model.encode_file(recording, granularity="frames", layers=[middle, -1])
print("frames:", tuple(frames.values.shape))  # [L, T, D]
for start, end in frames.times[:3].tolist():
    print(f"  {start:.2f} s to {end:.2f} s")

# Finer in time: four passes, shifted by 40 ms, are interleaved.
fine = model.encode_file(recording, granularity="frames", hop_ms=40)
print("every 40 ms:", tuple(fine.values.shape))  # [T, D]

# As a table, to be written as CSV or Parquet.
print(frames.to_dataframe().iloc[:3, :5].to_string(index=False))
