"""Every setting has a type and a range, checked before anything is built."""

import re
import runpy
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speechbrain.utils.run_opts import RunOptions

from eat.errors import ExperimentError
from eat.experiment import schema
from eat.experiment.config import load_config, read_override
from eat.experiment.settings import (
    KNOWN_SETTINGS,
    PRECISIONS,
    RUN_OPTIONS,
    UNSUPPORTED,
)
from eat.experiment.yaml_tree import plain_values, read_hyperpyyaml
from eat.inference.features import PRECISIONS as PRECISIONS_OF_FEATURES
from eat.model.classifier import POOLINGS
from eat.model.encoder import PRESETS
from eat.model.patching import PATCH, grid_of

RECIPES = Path(__file__).parents[3] / "recipes"
YAMLS = sorted(RECIPES.glob("*/hparams/*.yaml"))
VALUES = {path: plain_values(read_hyperpyyaml(path)) for path in YAMLS}
PRETRAIN = RECIPES / "AudioSet" / "hparams" / "pretrain.yaml"
FINETUNE = RECIPES / "SpeechCommands" / "hparams" / "finetune.yaml"
GIVEN = {"data_folder": "DATA", "output_folder": "RUN"}
FREE = ("modules", "checkpointer.recoverables")  # names of objects


def keys_of(values):
    """Yield the keys at the top, and those within objects as ``object.key``."""
    for key, value in values.items():
        yield key
        if isinstance(value, dict) and key not in FREE:
            yield from (f"{key}.{name}" for name in value if name != "!")


def load(path, **overrides):
    more = {"pretrained": "none"} if path == FINETUNE else {}
    texts = {key: str(value) for key, value in overrides.items()}
    return load_config(path, GIVEN | more | texts)


def refusal(path, **overrides):
    with pytest.raises(ExperimentError, match=re.escape(str(path))) as caught:
        load(path, **overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- the table ---------------------------------------------------------------------


def test_table_has_the_settings_of_all_files_and_no_others():
    used = {key for values in VALUES.values() for key in keys_of(values)}
    listed = {key for key in KNOWN_SETTINGS if not key.startswith("modules.")}
    assert listed == used


@pytest.mark.parametrize("task", ["pretrain", "finetune"])
def test_required_settings_are_those_of_all_files(task):
    files = [values for values in VALUES.values() if values["task"] == task]
    required = {
        key
        for key, setting in KNOWN_SETTINGS.items()
        if "." not in key and setting.task in ("", task) and not setting.optional
    }
    common = set.intersection(*(set(values) for values in files))
    assert required == {key for key in common if not KNOWN_SETTINGS[key].optional}
    others = {key for values in files for key in values} - required
    assert {KNOWN_SETTINGS[key].task for key in others} <= {"", task}


def test_all_run_options_are_supported_or_not():
    ours = {"param_file", "overridden_args", "distributed_launch", "tqdm_barcolor"}
    ours |= {"data_parallel_count"}  # what SpeechBrain's command line cannot set
    assert RUN_OPTIONS.keys() | UNSUPPORTED.keys() == {
        option.name for option in fields(RunOptions) if option.name not in ours
    }
    assert not RUN_OPTIONS.keys() & UNSUPPORTED.keys()
    assert {key for key in RUN_OPTIONS if key in KNOWN_SETTINGS} == {
        key for values in VALUES.values() for key in values if key in RUN_OPTIONS
    }


def test_choices_are_those_of_the_library():
    assert KNOWN_SETTINGS["encoder.preset"].choices == tuple(PRESETS)
    assert {name: preset["dim"] for name, preset in PRESETS.items()} == schema.WIDTHS
    assert KNOWN_SETTINGS["pooling"].choices == tuple(POOLINGS)
    assert set(PRECISIONS_OF_FEATURES) <= set(PRECISIONS)
    assert schema.PATCH == PATCH and grid_of(PATCH, 128) == (1, schema.BANDS)


def test_tables_of_the_documentation():
    pytest.importorskip("mkdocs")
    hooks = runpy.run_path(str(RECIPES.parent / "tools" / "mkdocs_hooks.py"))
    page = (RECIPES.parent / "docs" / "settings.md").read_text(encoding="utf-8")
    shown = hooks["on_page_markdown"](page)
    for key, setting in (KNOWN_SETTINGS | RUN_OPTIONS).items():
        is_reference = setting.kind == "object" or setting.meaning in KNOWN_SETTINGS
        assert is_reference or f"| `{key}` | {setting.meaning} |" in shown, key


def test_every_setting_says_what_it_means():
    for key, setting in (KNOWN_SETTINGS | RUN_OPTIONS).items():
        assert setting.meaning and "\n" not in setting.meaning + setting.accepts, key


# -- single values -----------------------------------------------------------------

NUMBERS = ("nan", "inf", "-inf", ".nan", ".inf", "1e999", "abc", "", "[1]", "True")


@pytest.mark.parametrize("text", [*NUMBERS, "1" + "0" * 400, "0x10", "1:30", "1,5"])
def test_numbers_are_finite_numbers(text):
    for key, setting in KNOWN_SETTINGS.items():
        if setting.kind in ("integer", "number"):
            with pytest.raises(ExperimentError, match=f"{key} is ") as caught:
                read_override(key, text, None, "x.yaml")
            assert setting.accepts in str(caught.value)


@pytest.mark.parametrize(
    ("key", "values"),
    {
        "lr": (-1, 1e9),
        "min_lr": (-1, 1),  # more than lr
        "seed": (-1, 2**32, 1.5),
        "num_workers": (-1, 0.5, 10**6),
        "max_seconds": (0, 0.01, -1, 1e9),
        "norm_std": (0, -1, 1e-9),
        "batch_size": (0, 2.5),
        "num_frames": (0, -16, 100, 8),
        "max_unreadable_share": (-0.1, 1.1),
        "held_out": (-0.1, 0.6),
        "clones": (0,),
        "ema_start": (-0.1, 1.1, 0.999999),  # the last is above ema_end
        "ema_end": (0.5, 2),
        "warmup_steps": (-1, 10**8),  # more than total_steps
        "number_of_epochs": (0, 10**12),
        "log_interval": (0,),
        "keep_checkpoints": (0,),
        "ckpt_interval_minutes": (-1,),
        "weight_decay": (-1,),
        "precision": ("fp8", "float32", ""),
        "task": ("test", "Pretrain"),
        "blocks": ("5", "0x5", "5x5,", "65x5", "5x9", "5 x 5", "-1x2"),
        "decay_vectors": (1, "yes", "", "null"),
        "output_folder": ("",),
        "mask_sampler": tuple(
            f"{{mask_ratio: {ratio}}}"
            for ratio in (0, 1, 0.999, 1.5, -0.5, ".nan", "a", "[]", "null")
        )
        + ("{adjust: 1}", "{adjust: -1}", "{mask_ratio: {}}", "[1]", "0.8", ""),
        "encoder": ("{preset: huge}", "{position_scale: -1}", "{max_frames: 16}"),
        "decoder": (
            "{groups: 7}",
            "{kernel: 2}",
            "{dim: 0}",
            "{dim: 64}",
            "{depth: 0}",
        ),
        "teacher": ("{center_momentum: 1}", "{num_patches: 3}"),
        "opt_class": ("{betas: [0.9]}", "{betas: [0.9, 1]}", "{eps: -1}", "{fused: 2}"),
    }.items(),
)
def test_absurd_values_are_refused(key, values):
    for value in values:
        assert key in refusal(PRETRAIN, **{key: value}), value
    assert "mask_ratio?" in refusal(PRETRAIN, mask_sampler="{mask_ration: 0.8}")


@pytest.mark.parametrize(
    ("key", "values"),
    {
        "layer_decay": (0, 1.01),
        "mixup_alpha": (-1,),
        "mixup_probability": (-0.1, 1.1),
        "spec_augment_ratio": (-0.1, 1.1),
        "num_classes": (0, 1.5),
        "pooling": ("max", ""),
        "encoder": ("{drop_path: 1}", "{drop_path: -1}"),
    }.items(),
)
def test_absurd_values_of_fine_tuning_are_refused(key, values):
    for value in values:
        assert key in refusal(FINETUNE, **{key: value}), value


def test_sensible_values_are_accepted():
    values = load(
        PRETRAIN,
        lr="1e-4",
        min_lr="0",
        batch_size="1e1",
        norm_mean="-4",
        mask_sampler="{mask_ratio: 0.998}",
        opt_class="{fused: True, betas: [0.9, 0.999]}",
        blocks="6x4,5x5,8x3",
        teacher="{center_momentum: 0.9}",
        max_grad_norm="-1",  # SpeechBrain's way to disable it
        num_workers="+2",
    ).values
    assert values["lr"] == 1e-4 and values["norm_mean"] == -4
    assert values["batch_size"] == 10 and isinstance(values["batch_size"], int)
    assert values["mask_sampler"]["mask_ratio"] == 0.998
    assert values["mask_sampler"]["blocks"] == "6x4,5x5,8x3"
    assert values["num_workers"] == 2


def test_missing_and_misspelled_settings_of_a_file(tmp_path):
    path = tmp_path / "own.yaml"
    text = read_hyperpyyaml(PRETRAIN)
    path.write_text(text.replace("\nclones:", "\nclone:"))
    assert "clones?" in refusal(path)
    path.write_text(re.sub("\nclones:.*", "", text))
    assert "clones" in refusal(path)
    path.write_text(f"{text}\nown_setting: 3\nmine: text\n")
    assert load(path, own_setting=4).values["own_setting"] == 4
    assert "own_setting" in refusal(path, own_setting="nan")
    path.write_text(f"{text}\n7: 3\n")
    assert "7" in refusal(path)


TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(NUMBERS),
    st.integers().map(str),
    st.floats().map(str),
    st.text("{}[]&*!<>:,#'\"01 ax\n", max_size=12),
)
LISTED = sorted({key for values in VALUES.values() for key in values})


@settings(max_examples=50)
@given(key=st.sampled_from(LISTED), text=TEXTS)
@pytest.mark.slow
def test_any_value_is_accepted_or_refused(key, text):
    path = PRETRAIN if key in VALUES[PRETRAIN] else FINETUNE
    try:
        values = load(path, **{key: text}).values
    except ExperimentError as error:
        assert str(error).isprintable() and key in str(error)
    else:
        assert schema.broken_rule(KNOWN_SETTINGS[key], values[key]) is None
        if KNOWN_SETTINGS[key].kind == "text":
            assert values[key] == text


@pytest.mark.parametrize(
    ("key", "text", "named"),
    [
        ("frontend", "{num_frames: 2048}", "num_frames"),
        ("frontend", "{mean: 3}", "norm_mean"),
        ("classifier", "{num_classes: 5}", "num_classes"),
        ("modules", "{classifier: {}}", "classifier"),
        ("epoch_counter", "{limit: 3}", "number_of_epochs"),
    ],
)
def test_parts_of_objects_equal_the_settings_they_stand_for(key, text, named):
    message = refusal(FINETUNE, **{key: text})
    assert key in message and named in message


def test_text_has_no_zero_byte(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(f'!include:{FINETUNE}\ndata_folder: "a\\0b"\n')
    with pytest.raises(ExperimentError, match="data_folder"):
        load_config(path, {"output_folder": "RUN", "pretrained": "none"})


@pytest.mark.parametrize(
    ("body", "named"),
    [("lr: !!python/object/apply:os.getcwd []", "getcwd"), ("lr: 1\nlr: 2", "twice")],
)
def test_tags_and_keys_of_own_files_that_are_refused(tmp_path, body, named):
    path = tmp_path / "own.yaml"
    path.write_text(f"!include:{FINETUNE}\n{body}\n")
    with pytest.raises(ExperimentError, match=f"{path}: .*{named}"):
        load_config(path, GIVEN | {"pretrained": "none"})


def test_an_include_may_replace_nothing(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(f"!include:{FINETUNE}\n")
    more = GIVEN | {"pretrained": "none"}
    assert load_config(path, more).values == load_config(FINETUNE, more).values
