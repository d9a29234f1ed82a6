"""Recognize checkpoints of other models, so that a refusal can name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# Part of a weight's name -> the model that has it; the first that fits is named.
SIGNATURES = {
    "audio_spectrogram_transformer.": "AST",
    "v.patch_embed.": "AST",
    "grep_linear": "BEATs or WavLM",
    "modality_encoders.AUDIO.": "data2vec 2.0 for speech",
    "modality_encoders.TEXT.": "data2vec 2.0 for text",
    "feature_extractor.conv_layers.": "wav2vec 2.0, HuBERT or data2vec for speech",
    "encoder.sentence_encoder.": "data2vec or RoBERTa for text",
    "decoder_embed.": "a masked autoencoder (AudioMAE, MAE)",
    "audio_branch.": "CLAP",
    "conv_block1.": "PANNs",
    "model.encoder.conv1.": "Whisper",
    "embeddings.word_embeddings.": "BERT",
    "patch_embed.": "a vision transformer (ViT, BEiT, AudioMAE)",
}


def describe(names: Iterable[str], settings: Mapping[str, Any] | None = None) -> str:
    """Say which model has weights of these names and such a ``cfg.model``."""
    names = [name for name in names if isinstance(name, str)]
    kind = (settings or {}).get("_name")
    first = [f"'{ascii(name)[1:-1][:60]}'" for name in names[:2]]
    if any("modality_encoders.IMAGE." in name for name in names):
        return "EAT's weights, but not all that fairseq writes; give the complete file"
    if any("encoder.patch_embedding." in name for name in names):
        return "weights of this toolkit without their config; give the model folder"
    model = next(
        (model for part, model in SIGNATURES.items() if any(part in n for n in names)),
        f"a model of type '{ascii(kind)[1:-1][:40]}'"
        if isinstance(kind, str)
        else "another model",
    )
    return (
        f"not an EAT model but {model}; it contains {', '.join(first) or 'no weights'}"
    )
