"""Write a checkpoint as a folder for Hugging Face transformers and the Hub."""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import ASTFeatureExtractor

from eat._version import __version__
from eat.audio.frontend import LogMel
from eat.errors import CheckpointError, ExperimentError
from eat.interop import modeling_eat
from eat.interop.card import CARD, model_card, training_section, transformers_snippet
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
from eat.utils.files import new_path, write_json, write_text

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

{use}
With eat-toolkit, `import eat.hf` makes `trust_remote_code` unnecessary, and
`eat.from_pretrained("FOLDER")` opens the folder as well.
"""


def export_hugging_face(
    source: str | Path,
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
        If the checkpoint cannot be used, masks the padding, or does not have as many
        classes as there are labels.
    ExperimentError
        If the folder exists or cannot be written.
    """
    checkpoint = Checkpoint.read(source)
    checkpoint.require_no_mask("a model of transformers")
    model = _make_model(checkpoint, labels)
    with new_path(folder) as new:
        try:
            model.save_pretrained(new)
        except SafetensorError as error:  # for instance if the disk is full
            raise ExperimentError(
                f"{folder}: cannot be written, {error} (free some space)"
            ) from error
        _feature_extractor(checkpoint.frontend()).save_pretrained(new)
        write_modeling(new)
        write_text(new / CARD, _card(checkpoint, model))
        for name, content in SENTENCE_TRANSFORMER.items():
            write_json(new / name, content)
        # safetensors gives its files to the owner alone, whatever the umask.
        (new / WEIGHTS).chmod((new / CONFIG).stat().st_mode & 0o777)


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
    problem = "multi_label_classification" if checkpoint.multi_label else None
    if num_classes > 1:  # transformers 5 refuses a single label of one class
        problem = problem or "single_label_classification"
    config = EATConfig(
        **_sizes(encoder),
        pooling=network.pooling,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        problem_type=problem,
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
    config = {**checkpoint.config, "multi_label": checkpoint.multi_label}
    if checkpoint.kind == "pretraining":
        config["kind"] = "encoder"
    return model_card(
        config,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        training=training_section(Path(checkpoint.path)),
        library="transformers",
        use=USE.format(use=transformers_snippet(config)),
    )


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
