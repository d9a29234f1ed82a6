"""What a file, folder or model is that was given in place of an EAT checkpoint."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from eat.errors import CheckpointError
from eat.utils.files import sha256_file

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

DOWNLOAD = "download the file itself"
# First bytes -> what such a file is, and what to do.
MAGIC = {
    b"version https://git-lfs": "a Git LFS pointer, not the file (run `git lfs pull`)",
    b"\x1f\x8b": "a gzip archive (unpack it)",
    b"BZh": "a bzip2 archive (unpack it)",
    b"\xfd7zXZ": "an xz archive (unpack it)",
    b"(\xb5/\xfd": "a Zstandard archive (unpack it)",
    b"7z\xbc\xaf": "a 7z archive (unpack it)",
    b"Rar!": "a RAR archive (unpack it)",
    b"PK\x03\x04": "a zip archive or a file of torch.save, not safetensors",
    b"GGUF": "a GGUF file, not a PyTorch checkpoint",
    b"\x89HDF": "an HDF5 file (Keras, TensorFlow?), not a PyTorch checkpoint",
    b"\x93NUMPY": "a NumPy file, not a checkpoint",
    b"RIFF": "an audio file, not a checkpoint",
    b"fLaC": "an audio file, not a checkpoint",
    b"OggS": "an audio file, not a checkpoint",
    b"ID3": "an audio file, not a checkpoint",
    b"\xff\xfe": "a text in UTF-16, not a checkpoint",
    b"%PDF": "a PDF document, not a checkpoint",
    b"\x89PNG": "a picture, not a checkpoint",
}
WEB_PAGE = re.compile(rb"\s*<(!doctype|html|\?xml|head|error)", re.IGNORECASE)

# Files that a folder may hold in place of ours -> what to do.
OTHER_FILES = {
    "pytorch_model.bin": "weights as a pickle: convert them to model.safetensors",
    "tf_model.h5": "TensorFlow weights: download the PyTorch model",
    "flax_model.msgpack": "Flax weights: download the PyTorch model",
    "saved_model.pb": "a TensorFlow model: download the PyTorch model",
}

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


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; a pipe or a device, which may never end, is refused."""
    if not stat.S_ISREG(os.stat(path).st_mode) and not path.is_dir():
        raise CheckpointError(f"{path}: not a regular file (give a checkpoint)")
    return open(path, "rb")


def is_folder(path: str | Path) -> bool:
    """Return whether this is a folder; raises `CheckpointError` if that is unknown."""
    if not os.fspath(path):
        raise CheckpointError("the path of the checkpoint is empty (give one)")
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return False
    except ValueError as error:
        raise CheckpointError(f"{ascii(path)}: not a path ({error})") from error
    except OSError as error:
        raise cannot_be_read(path, error) from error


def cannot_be_read(path: str | Path, error: OSError) -> CheckpointError:
    """Return the error of a file that exists or not, but was not read."""
    reason = error.strerror or str(error)
    remedy = "the disk or its connection may be faulty; try again, or copy the file"
    if isinstance(error, FileNotFoundError):
        reason, remedy = "no such file or folder", _remedy_if_missing(str(path))
        if os.path.islink(path):
            reason, remedy = "a link to a file that is missing", DOWNLOAD
    elif isinstance(error, PermissionError):
        remedy = "ask its owner for read access, or run `chmod +r`"
    elif isinstance(error, (IsADirectoryError, NotADirectoryError)):
        remedy = "check the path"
    elif error.errno == errno.ELOOP:
        remedy = "a link that leads to itself; check the path"
    else:
        reason = f"cannot be read: {reason}"
    return CheckpointError(f"{path}: {reason} ({remedy})")


def _remedy_if_missing(path: str) -> str:
    if re.match(r"\w+:/", path):
        return "an address: download the model first, then give its folder"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", path) and not Path(path).parent.exists():
        return (
            "if it is a model on the Hugging Face hub, download it first: `hf download "
            f"{path} --local-dir FOLDER`, then give FOLDER"
        )
    return "check the path; models on the Hugging Face hub must be downloaded first"


def what_is(path: Path, head: bytes) -> str | None:
    """Say what a file is by its first 512 bytes; None if it may be a checkpoint."""
    if not head:
        return f"an empty file (the download or the copy failed; {DOWNLOAD})"
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            return kind
    if WEB_PAGE.match(head.removeprefix(b"\xef\xbb\xbf")):
        return f"a web page or a server's error message, not the file ({DOWNLOAD})"
    if head[257:262] == b"ustar":
        return (
            "a tar archive, as torch wrote before version 0.1.10 (unpack it, or save "
            "it again with a newer torch)"
        )
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return "a safetensors file (give the folder that contains it)"
    if path.suffix == ".onnx" or (head[:1], head[2:3]) == (b"\x08", b"\x12"):
        return "an ONNX model, not a PyTorch checkpoint"
    if head[4:8] == b"TFL3" or path.name.endswith((".pb", ".ckpt.index")):
        return "a TensorFlow model, not a PyTorch checkpoint"
    if not head.strip(b"\0"):
        return f"begins with zeros only: a copy that did not finish ({DOWNLOAD})"
    text = "".join(head.decode("latin1").split())
    if text.isascii() and text.isprintable() or head[:1] in b"{[":
        excerpt = ascii(head[:60].decode("utf-8", "replace"))[1:-1]
        return f"a text, not a checkpoint: {excerpt} ({DOWNLOAD})"
    return None


def what_folder(folder: Path) -> str:
    """Say what a folder is that contains no model, and what to give instead."""
    names = {path.name for path in folder.iterdir()}
    if not names:
        return f"contains no {CONFIG}, it is empty (give a model folder: RUN/model)"
    if (folder / "model" / CONFIG).is_file():
        return f"the folder of a run; its model is in {folder / 'model'} (give that)"
    if "save" in names or {"hyperparams.yaml", "metrics.jsonl"} & names:
        return (
            "the folder of a run that has not written RUN/model yet (let it finish; "
            "re-run the same command to resume)"
        )
    if any(name.startswith("CKPT") for name in {folder.name, *names}):
        return "what a run is resumed from, not a model (give RUN/model of the run)"
    if "snapshots" in names:
        return (
            f"a cache of the Hugging Face hub (give {folder / 'snapshots'}/<revision>)"
        )
    for name, kind in OTHER_FILES.items():
        if name in names:
            return f"contains {name}, {kind}"
    inner = sorted(name for name in names if (folder / name / CONFIG).is_file())
    if inner:
        return f"contains model folders (give {folder / inner[0]})"
    files = sorted(n for n in names if n.endswith((".pt", ".pth", ".ckpt", ".bin")))
    if files:
        return f"contains no {CONFIG} (give the file itself: {folder / files[0]})"
    missing = CONFIG if CONFIG not in names else WEIGHTS
    found = ", ".join(ascii(name)[1:-1] for name in sorted(names)[:3])
    return (
        f"contains no {missing}, but {found} (give a model folder, such as RUN/model "
        "of a finished run, or an official .pt file)"
    )


def what_model(names: Iterable[str], settings: Mapping[str, Any] | None = None) -> str:
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


def weights_checksum(source: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of the weights of a checkpoint, a file or folder."""
    source = Path(source)
    if not source.is_dir():
        return sha256_file(source)
    if (source / WEIGHTS).exists():
        return sha256_file(source / WEIGHTS)
    return " ".join(map(sha256_file, sorted(source.glob("*.safetensors"))))
