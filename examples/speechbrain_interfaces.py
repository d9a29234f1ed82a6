"""# Under SpeechBrain

A model folder is a source of SpeechBrain's `Pretrained` interfaces: features of a batch
with relative lengths, and classification with SpeechBrain's return values.

    python examples/speechbrain_interfaces.py MODEL RECORDING [RECORDING ...]

MODEL is the folder `model` of a run; classes are printed if it was fine-tuned.
"""

import sys
import tempfile

import torch
from torch.nn.utils.rnn import pad_sequence

import eat
from eat.adapters.speechbrain import EATFeatures, EATTagger
from eat.audio.io import read_audio

source, *recordings = sys.argv[1:]
wavs = [read_audio(recording) for recording in recordings]
batch = pad_sequence(wavs, batch_first=True)  # [B, S]
wav_lens = torch.tensor([len(wav) / batch.shape[1] for wav in wavs])  # relative

with tempfile.TemporaryDirectory() as cache:
    features = EATFeatures.from_hparams(source, savedir=f"{cache}/features")
    print("features:", tuple(features.encode_batch(batch, wav_lens).shape))  # [B, D]
    if eat.from_pretrained(source).labels:
        tagger = EATTagger.from_hparams(source, savedir=f"{cache}/tags")
        for recording in recordings:
            _, score, _, label = tagger.classify_file(recording)
            print(f"{recording}: {label[0]} {score.item():.3f}")
