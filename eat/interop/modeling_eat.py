"""EAT for Hugging Face transformers 4.57 and 5: config, features, classification.

A folder for transformers contains this file and the network's as one, which imports
torch and transformers only; see :mod:`eat.interop.hugging_face_export`.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    SequenceClassifierOutput,
)
from transformers.utils import ModelOutput

from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder, EncoderOutput
from eat.model.patching import PATCH, sincos_positions

Output = TypeVar("Output", bound=ModelOutput)

# Class of transformers -> the class here that it builds.
AUTO_MAP = {
    "AutoConfig": "modeling_eat.EATConfig",
    "AutoModel": "modeling_eat.EATModel",
    "AutoModelForAudioClassification": "modeling_eat.EATForAudioClassification",
}


class EATConfig(PretrainedConfig):
    """Sizes and options of the network.

    Parameters
    ----------
    hidden_size, num_hidden_layers, num_attention_heads
        Width D, number of blocks, attention heads per block.
    num_mel_bins, max_frames
        Mel bins F, and the largest number of frames T.
    position_scale
        Factor of the fixed positions, 1 in EAT.
    drop_path_rate
        Stochastic-depth rate of the last block, for fine-tuning.
    pooling
        What the classifier sees: ``cls``, ``mean`` or ``linear_softmax``.
    **kwargs
        Those of every config: ``id2label``, ``problem_type`` and others.
    """

    model_type = "eat"

    def __init__(
        self,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        num_mel_bins: int = 128,
        max_frames: int = 12288,
        position_scale: float = 1.0,
        drop_path_rate: float = 0.0,
        pooling: str = "cls",
        **kwargs: Any,
    ) -> None:
        if "embed_dim" in kwargs:
            raise ValueError(
                "config.json: has 'embed_dim', which is a model in the format of EAT's "
                "authors (convert the folder with `eat export hf FOLDER OUT`, or pass "
                "trust_remote_code=True to run the authors' code)"
            )
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_mel_bins = num_mel_bins
        self.max_frames = max_frames
        self.position_scale = position_scale
        self.drop_path_rate = drop_path_rate
        self.pooling = pooling
        super().__init__(**{"auto_map": AUTO_MAP, **kwargs})

    def make_encoder(self) -> EATEncoder:
        """Build the encoder; its positions are part of its state."""
        encoder = EATEncoder(
            dim=self.hidden_size,
            depth=self.num_hidden_layers,
            num_heads=self.num_attention_heads,
            drop_path=self.drop_path_rate,
            max_frames=self.max_frames,
            num_mels=self.num_mel_bins,
            position_scale=self.position_scale,
        )
        # transformers 5 leaves buffers that are not persistent uninitialized.
        encoder.register_buffer("positions", encoder.positions, persistent=True)
        return encoder


class EATPreTrainedModel(PreTrainedModel):
    """What both models share."""

    config_class = EATConfig
    base_model_prefix = "eat"
    main_input_name = "input_values"
    input_modalities = "audio"
    _no_split_modules = ["PostNormBlock"]
    _supports_sdpa = True  # on GPUs; on the CPU the network computes it explicitly

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialize what a checkpoint does not contain, such as a new head."""
        super()._init_weights(module)
        if isinstance(module, EATEncoder):
            nn.init.normal_(module.cls_token)
            config = self.config
            grid = (config.max_frames // PATCH, config.num_mel_bins // PATCH)
            positions = sincos_positions(config.hidden_size, grid)
            module.positions.copy_(positions * config.position_scale)

    def _encode(
        self,
        encoder: EATEncoder,
        input_values: Tensor,
        output_hidden_states: bool | None,
    ) -> tuple[EncoderOutput, tuple[Tensor, ...] | None]:
        """Encode `[B, T, F]`; also return the input and output of all blocks."""
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        # The positions remain in fp32 when transformers 5 loads the weights in bf16.
        patches = encoder.embed(input_values.to(self.dtype)).to(self.dtype)
        encoded = encoder.encode(patches, return_layers=bool(output_hidden_states))
        if not output_hidden_states:
            return encoded, None
        cls_token = encoder.cls_token.expand(patches.shape[0], -1, -1)
        embedded = encoder.norm(torch.cat([cls_token, patches], dim=1))
        return encoded, (embedded, *encoded.layers)

    def _output(self, output: Output, return_dict: bool | None) -> Output | tuple:
        """Return the output, or as a tuple if that is asked for."""
        if return_dict is None:
            return_dict = self.config.return_dict
        return output if return_dict else output.to_tuple()


class EATModel(EATPreTrainedModel):
    """The encoder: log-mel to features.

    Parameters
    ----------
    config
        Sizes and options.
    """

    # The head of a classifier, in whose folder the encoder is opened.
    _keys_to_ignore_on_load_unexpected = [r"^(eat\.)?(norm|head)\."]

    def __init__(self, config: EATConfig) -> None:
        super().__init__(config)
        self.encoder = config.make_encoder()
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the layer that embeds patches."""
        return self.encoder.patch_embedding

    def forward(
        self,
        input_values: Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple:
        """Encode normalized log-mel.

        Parameters
        ----------
        input_values
            As the feature extractor returns it, `[B, T, F]`, T a multiple of 16.
        output_hidden_states
            Also return the input of the first block and the outputs of all, `[B, N+1,
            D]` each.
        return_dict
            False: return a tuple.

        Returns
        -------
        BaseModelOutputWithPooling
            ``last_hidden_state`` `[B, N+1, D]`, the CLS token first, and
            ``pooler_output`` `[B, D]`, the CLS token.
        """
        encoded, hidden_states = self._encode(
            self.encoder, input_values, output_hidden_states
        )
        output = BaseModelOutputWithPooling(
            last_hidden_state=torch.cat([encoded.cls[:, None], encoded.patches], dim=1),
            pooler_output=encoded.cls,
            hidden_states=hidden_states,
        )
        return self._output(output, return_dict)


class EATForAudioClassification(EATPreTrainedModel):
    """Encoder, pooling, layer norm and one linear layer: log-mel to logits.

    Parameters
    ----------
    config
        Sizes and options; ``num_labels`` or ``id2label`` sets the number of classes C.
    """

    def __init__(self, config: EATConfig) -> None:
        super().__init__(config)
        encoder, num_labels = config.make_encoder(), config.num_labels or 2
        self.eat = EATClassifier(encoder, num_labels, config.pooling)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the layer that embeds patches."""
        return self.eat.encoder.patch_embedding

    def forward(
        self,
        input_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple:
        """Classify normalized log-mel.

        Parameters
        ----------
        input_values
            As the feature extractor returns it, `[B, T, F]`, T a multiple of 16.
        labels
            For the loss: 0 or 1 for each class `[B, C]` if the config's
            ``problem_type`` is ``multi_label_classification`` (binary cross entropy),
            else indices of classes `[B]` or probabilities `[B, C]` (cross entropy).
        output_hidden_states, return_dict
            As in `EATModel`.

        Returns
        -------
        SequenceClassifierOutput
            ``logits`` `[B, C]`, and ``loss`` if labels were given.
        """
        encoded, hidden_states = self._encode(
            self.eat.encoder, input_values, output_hidden_states
        )
        logits = self.eat.classify(encoded)
        loss = None
        if labels is not None:
            if self.config.problem_type == "multi_label_classification":
                loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits))
            else:
                loss = F.cross_entropy(logits, labels)
        output = SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=hidden_states
        )
        return self._output(output, return_dict)
