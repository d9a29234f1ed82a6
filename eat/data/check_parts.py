"""The check of a corpus's audio by independent jobs (``--part i/N``).

The files are checked in blocks, dealt out to the parts by number. What is in the files
of a block is written to a file of its own, which appears only when it is complete: a
part that was killed continues with the missing blocks, and parts may overlap or be
repeated. The part that finds all blocks complete joins them and continues alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from eat.data.audio_check import PARTS, check_batch, slices, write_checked
from eat.data.prepare import up_to_date
from eat.errors import ManifestError
from eat.utils.files import remove_temporaries
from eat.utils.parts import WHOLE, Part

logger = logging.getLogger(__name__)

BLOCK = 1024  # files
_THREADS = 16  # tasks of a block


class SharedCheck:
    """The blocks of a check, in the folder ``checked_parts`` of the save folder.

    `inputs` are what the results depend on, as for `up_to_date`. Raises `ManifestError`
    if there are blocks of parts with other inputs.
    """

    def __init__(
        self, root: Path, save_folder: Path, inputs: Mapping[str, object], part: Part
    ) -> None:
        self.root, self.save_folder = root, save_folder
        self.inputs, self.part = inputs, part
        self.folder = save_folder / PARTS
        text = json.dumps(inputs, sort_keys=True)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:16]
        for path in self.folder.glob("[!.]*.csv"):
            if not path.name.startswith(f"{self.key}-"):
                raise ManifestError(
                    f"{self.folder}: has parts of other files or options (delete it if "
                    "the corpus has changed, or choose another folder)"
                )
        remove_temporaries(self.folder)

    def check(self, number: int, files: Sequence[str]) -> None:
        """Check the files of a block, unless it is there."""
        path = self._path(number)
        if path.exists():
            return
        with ThreadPoolExecutor(_THREADS) as pool:
            checked = list(check_batch(self.root, files, {}, pool))
        self.folder.mkdir(exist_ok=True)
        write_checked(path, checked)

    def is_complete(self, blocks: int) -> bool:
        """Return whether all blocks are there; if not, say which parts are missing.

        Raises `ManifestError` if parts are missing and this one was to join them.
        """
        absent = [n for n in range(blocks) if not self._path(n).exists()]
        if not absent:
            return True
        if up_to_date(self.save_folder, self.inputs):  # others have joined them
            shutil.rmtree(self.folder, ignore_errors=True)
            return False
        missing = self.part.missing(absent)
        if not self.part.number:
            raise ManifestError(f"{self.save_folder}: {missing}")
        line = "%s: part %d of %d is complete; %s"
        logger.info(line, self.save_folder, *self.part, missing)
        return False

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.key}-{number:06d}.csv"


def check_part(
    root: Path,
    files: Iterable[str],
    save_folder: Path,
    inputs: Mapping[str, object],
    part: Part,
) -> bool:
    """Check a part of the files; return whether those of all parts are checked.

    The files and `root` are as for `check_audio`, which has nothing left to do then.
    """
    if part == WHOLE:
        return True
    blocks = list(slices(sorted(set(files)), BLOCK))
    check = SharedCheck(root, save_folder, inputs, part)
    share = part.share(range(len(blocks)))
    total = sum(len(blocks[number]) for number in share)
    with tqdm(total=total, unit="file", desc="checking", disable=None) as bar:
        for number in share:
            check.check(number, blocks[number])
            bar.update(len(blocks[number]))
    return check.is_complete(len(blocks))
