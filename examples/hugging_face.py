"""# Under Hugging Face

A checkpoint in the format of Hugging Face opens in `transformers` and in
`sentence-transformers`, here and where this toolkit is not installed.

    python examples/hugging_face.py MODEL RECORDING FOLDER

FOLDER is written.
"""

import subprocess
import sys

import torch
from transformers import AutoFeatureExtractor, AutoModel

import eat
import eat.hf  # registers EAT with transformers: no remote code is needed
from eat.audio.io import read_audio

checkpoint, recording, folder = sys.argv[1:]
subprocess.run(["eat", "export", "hf", checkpoint, folder], check=True)

model = AutoModel.from_pretrained(folder).eval()
extract = AutoFeatureExtractor.from_pretrained(folder)
# The extractor cuts longer recordings, of which this toolkit encodes windows.
ours = eat.from_pretrained(checkpoint)
wav = read_audio(recording, max_seconds=ours.max_seconds)  # [S] at 16 kHz
inputs = extract(wav.numpy(), sampling_rate=16000, return_tensors="pt")
with torch.no_grad():
    output = model(inputs["input_values"])
print("tokens:", tuple(output.last_hidden_state.shape))  # [1, 1 + N, D]

# The same features as with this toolkit.
features = ours.encode_batch(wav)[0]
difference = (output.pooler_output[0] - features).abs().max().item()
print(f"largest difference: {difference:.1e}")
