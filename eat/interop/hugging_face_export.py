"""Write a checkpoint as a folder for Hugging Face transformers and the Hub."""

from __future__ import annotations

import ast
import inspect
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import ASTFeatureExtractor

from eat._version import __version__
from eat.audio.frontend import LogMel
from eat.errors import CheckpointError
from eat.interop import modeling_eat
from eat.interop.card import CARD, model_card
from eat.interop.file_kinds import CONFIG, WEIGHTS
from eat.interop.hugging_face import SIZES
from eat.interop.loading import Checkpoint
from eat.interop.modeling_eat import (
    EATConfig,
    EATForAudioClassification,
    EATModel,
    EATPreTrainedModel,
)
from eat.model import classifier, encoder, patching, transformer
from eat.model.encoder import EATEncoder
from eat.utils.files import write_json, write_text

# The sources that make up the file with the code, each after those it needs.
PARTS = (patching, transformer, encoder, classifier, modeling_eat)
MODELING = "modeling_eat.py"
HEADER = f'''"""The Efficient Audio Transformer for Hugging Face transformers.

Written by eat-toolkit {__version__} (Apache License 2.0). It works with transformers
4.57 and 5, and imports nothing else but torch.
"""

from __future__ import annotations
'''

# What sentence-transformers reads: a clip's embedding is the CLS token.
SENTENCE_TRANSFORMER = {
    "modules.json": [
        {
            "idx": 0,
            "name": "0",
            "path": "",
            "type": "sentence_transformers.base.modules.transformer.Transformer",
        }
    ],
    "sentence_bert_config.json": {
        "transformer_task": "feature-extraction",
        "modality_config": {
            "audio": {"method": "forward", "method_output_name": "pooler_output"}
        },
        "module_output_name": "sentence_embedding",
    },
}

USE = """\
`FOLDER` is this folder, or its name on the Hub. With transformers and torchaudio:

```python
{use}```

With eat-toolkit, `import eat.hf` makes `trust_remote_code` unnecessary, and
`eat.from_pretrained("FOLDER")` opens the folder as well.
"""
CLASSIFY = """\
from transformers import pipeline

classify = pipeline("audio-classification", "FOLDER", trust_remote_code=True)
classify("dog.wav", function_to_apply="{function}")
"""
ENCODE = """\
from transformers import AutoFeatureExtractor, AutoModel

extractor = AutoFeatureExtractor.from_pretrained("FOLDER")
model = AutoModel.from_pretrained("FOLDER", trust_remote_code=True).eval()
# wav: a mono recording at 16 kHz, as an array of float32
inputs = extractor(wav, sampling_rate=16000, return_tensors="pt")
model(**inputs).pooler_output  # [1, {dim}]
"""


def export_hugging_face(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    labels: Sequence[str] | None = None,
) -> None:
    """Write a folder that transformers opens: config, weights, code, feature extractor.

    A fine-tuned checkpoint becomes an `EATForAudioClassification`, any other the
    `EATModel` of its student.

    Parameters
    ----------
    source
        A checkpoint, see `eat.from_pretrained`.
    folder
        The folder to write, which must not exist.
    labels
        Names of the classes, by default the checkpoint's.

    Raises
    ------
    CheckpointError
        If the checkpoint cannot be used, does not have as many classes as there are
        labels, or the folder exists.
    """
    folder = Path(folder)
    if os.path.lexists(folder):
        raise CheckpointError(f"{folder}: already exists (choose another name)")
    checkpoint = Checkpoint.read(Path(source))
    model = _make_model(checkpoint, labels)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Complete or not at all: the last step gives it its name.
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        inner = temporary / folder.name
        model.save_pretrained(inner)
        _feature_extractor(checkpoint.frontend()).save_pretrained(inner)
        write_modeling(inner)
        write_text(inner / CARD, _card(checkpoint, model))
        for name, content in SENTENCE_TRANSFORMER.items():
            write_json(inner / name, content)
        # safetensors gives its files to the owner alone, whatever the umask.
        (inner / WEIGHTS).chmod((inner / CONFIG).stat().st_mode & 0o777)
        os.rename(inner, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make_model(
    checkpoint: Checkpoint, labels: Sequence[str] | None
) -> EATPreTrainedModel:
    """Build the model of transformers with a checkpoint's weights."""
    if checkpoint.kind != "classifier":
        encoder = checkpoint.encoder()
        model = EATModel(EATConfig(**_sizes(encoder)))
        state = encoder.state_dict()
        model.encoder.load_state_dict({**state, "positions": encoder.positions})
        return model
    network = checkpoint.classifier()
    encoder, num_classes = network.encoder, network.head.out_features
    names = checkpoint.labels if labels is None else tuple(labels)
    if names is None:
        names = tuple(f"LABEL_{i}" for i in range(num_classes))  # as transformers does
    if len(names) != num_classes:
        raise CheckpointError(
            f"{checkpoint.path}: has {num_classes} classes, but {len(names)} labels "
            "were given (give one for each class, in the order of the outputs)"
        )
    kind = "multi" if checkpoint.multi_label else "single"
    config = EATConfig(
        **_sizes(encoder),
        pooling=network.pooling,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        problem_type=f"{kind}_label_classification",
    )
    classifier = EATForAudioClassification(config)
    state = network.state_dict()
    classifier.eat.load_state_dict({**state, "encoder.positions": encoder.positions})
    return classifier


def _sizes(encoder: EATEncoder) -> dict[str, Any]:
    return {theirs: encoder.config[ours] for ours, theirs in SIZES.items()}


def _feature_extractor(frontend: LogMel) -> ASTFeatureExtractor:
    """Return the one of transformers that computes what the front end does."""
    return ASTFeatureExtractor(
        mean=frontend.mean, std=frontend.std, max_length=frontend.num_frames
    )


def _card(checkpoint: Checkpoint, model: EATPreTrainedModel) -> str:
    use = ENCODE.format(dim=model.config.hidden_size)
    kind = checkpoint.kind
    if kind == "classifier":
        use = CLASSIFY.format(
            function="sigmoid" if checkpoint.multi_label else "softmax"
        )
    config = {**checkpoint.config, "multi_label": checkpoint.multi_label}
    config["kind"] = "encoder" if kind == "pretraining" else kind
    parameters = sum(parameter.numel() for parameter in model.parameters())
    use = USE.format(use=use)
    return model_card(config, parameters, library="transformers", use=use)


def write_modeling(folder: str | os.PathLike[str]) -> None:
    """Write the code, which `auto_map` in the config names, into a folder."""
    write_text(Path(folder) / MODELING, modeling_source())


def modeling_source() -> str:
    """Return the network and its classes for transformers as the source of one file."""
    imports: set[str] = set()
    code = []
    for part in PARTS:
        source = inspect.getsource(part)
        tree = ast.parse(source)
        lines = source.splitlines()
        start = tree.body[0].end_lineno or 0  # the module's docstring
        for node in tree.body:
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            start = node.end_lineno or start
            module = node.module if isinstance(node, ast.ImportFrom) else ""
            if module != "__future__" and not (module or "").startswith("eat."):
                imports.add(ast.unparse(node))
        code.append("\n".join(lines[start:]).strip("\n"))
    return "\n".join([HEADER, *sorted(imports), "\n", "\n\n\n".join(code), ""])
