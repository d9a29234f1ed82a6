"""The settings and run options for people: ``--help``, and a page of the docs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from eat.experiment.settings import KNOWN_SETTINGS, RUN_OPTIONS, Setting
from eat.experiment.yaml_tree import dump, read_tree, tag_of

OBJECTS = 'Settings of objects, as --encoder "{preset: tiny, drop_path: 0.1}":'


def wants_help(argv: Sequence[str]) -> bool:
    """Return whether the arguments ask for help."""
    return "--help" in argv or "-h" in argv


def help_text(argv: Sequence[str]) -> str:
    """Return the settings, with the values of the YAML file if one is among `argv`."""
    script = os.path.basename(sys.argv[0])
    path = next((word for word in argv if word.endswith((".yaml", ".yml"))), None)
    tree = read_tree(path) if path else {}
    lines = [f"usage: python {script} {path or 'FILE.yaml'} [--KEY VALUE ...]", ""]
    if not path:
        files = sorted(Path(sys.argv[0]).parent.glob("hparams/*.yaml"))
        lines += ["FILE.yaml, whose values --help shows if it is given:"]
        lines += [*(f"  hparams/{file.name}" for file in files), ""]
    found = {key: _shown(value) for key, value in tree.items()}
    parts = {
        f"{key}.{name}": _shown(part)
        for key, value in tree.items()
        for name, part in (value.items() if isinstance(value, Mapping) else ())
    }
    listed = [key for key in KNOWN_SETTINGS if not path or key in found | parts]
    top = [key for key in listed if "." not in key]
    nested = [key for key in listed if "." in key]
    lines += [f"Settings of {path}:" if path else "Settings:"]
    lines += _rows(KNOWN_SETTINGS, top, found)
    own = [key for key in found if key not in KNOWN_SETTINGS]
    lines += [f"  --{key} = {found[key]}" for key in own]
    lines += ["", OBJECTS, *_rows(KNOWN_SETTINGS, nested, parts, option="")]
    options = [key for key in RUN_OPTIONS if key not in KNOWN_SETTINGS]
    return "\n".join([*lines, "", "Run options:", *_rows(RUN_OPTIONS, options, {})])


def markdown_tables() -> str:
    """Return the settings, those of objects, and the run options as Markdown tables."""
    top = {key: s for key, s in KNOWN_SETTINGS.items() if "." not in key}
    nested = {key: s for key, s in KNOWN_SETTINGS.items() if "." in key}
    run_options = {
        key: s for key, s in RUN_OPTIONS.items() if key not in KNOWN_SETTINGS
    }
    sections = {"Settings": top, "Objects": nested, "Run options": run_options}
    lines = []
    for title, settings in sections.items():
        lines += [f"## {title}", "", "| name | meaning | accepts | in |"]
        lines += ["|---|---|---|---|"]
        for key, setting in settings.items():
            if _is_shown(setting):
                cells = (f"`{key}`", setting.meaning, setting.accepts, setting.task)
                lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _rows(
    table: Mapping[str, Setting],
    keys: Iterable[str],
    defaults: Mapping[str, str],
    option: str = "--",
) -> list[str]:
    """Return one or two lines per setting: its name, meaning, values and default."""
    rows = []
    for key in keys:
        setting = table[key]
        if _is_shown(setting):
            default = f" = {defaults[key]}" if key in defaults else ""
            rows.append(f"  {option}{key}{default}")
            plain = setting.kind == "flag" or setting.accepts == "text"
            accepts = "" if plain else f" ({setting.accepts})"
            rows.append(f"      {setting.meaning}{accepts}")
    return rows


def _is_shown(setting: Setting) -> bool:
    """Return whether a setting is a user's, rather than a reference to another one."""
    return setting.kind != "object" and setting.meaning not in KNOWN_SETTINGS


def _shown(value: object) -> str:
    """Return a value as the YAML file has it."""
    tag = tag_of(value)
    if tag == "!PLACEHOLDER":
        return "required"
    text = dump({"": value}).split(":", 1)[1].split("#")[0].strip()
    return text.removeprefix("!ref ") if tag == "!ref" else text
