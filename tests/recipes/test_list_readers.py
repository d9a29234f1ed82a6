"""Whatever is in a list that a recipe reads, the error is one line that names it."""

import importlib
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eat.data.compact_manifest import CompactManifest
from eat.data.manifest import read_labels
from eat.data.tables import read_table
from eat.errors import ManifestError
from eat.evaluation.per_class import read_class_ap

RECIPES = Path(__file__).parents[2] / "recipes"
for recipe in ("AudioSet", "ESC50", "SpeechCommands"):
    sys.path.append(str(RECIPES / recipe))
lists = importlib.import_module("audioset_lists")
tsv = importlib.import_module("audioset_tsv")
esc50 = importlib.import_module("esc50_prepare")
commands = importlib.import_module("speech_commands_prepare")

READERS = {
    CompactManifest: "ID,duration,wav,labels\na,1.0,$data_root/a.wav,x;y\n",
    read_labels: 'index,mid,display_name\n0,/m/1,"Speech, x"\n1,/m/2,é\n',
    read_class_ap: "Class          AP\nSpeech, x    0.5\n",
    lists.read_list: '# YTID\n-abc, 0.000, 10.000, "/m/1,/m/2"\n',
    tsv._read_tsv: "/audio\nYabc.wav\t320000\n",
    tsv._read_lbl: "Yabc\t/m/1,/m/2\n",
    esc50._read_table: f"{','.join(esc50.COLUMNS)}\n1-1-A-0.wav,1,0,dog,1\n",
    lambda path: list(commands._read_list(path)): "bed/0a7c2a8d_nohash_0.wav\n",
}
CHARACTERS = st.sampled_from('",;\t\r\n \0\ufeffé#=\u2028-1.')


@settings(max_examples=40)
@given(data=st.data())
@pytest.mark.slow
def test_a_spoiled_list_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("list") / "list.csv"
    for reader, text in READERS.items():
        start, end = sorted(data.draw(st.integers(0, len(text))) for _ in range(2))
        text = text[:start] + data.draw(st.text(CHARACTERS, max_size=4)) + text[end:]
        encoding = data.draw(
            st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"])
        )
        path.write_bytes(text.encode(encoding, "replace"))
        try:
            reader(path)
        except ManifestError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


def test_line_breaks_in_values_do_not_break_the_message(tmp_path):
    broken = {
        read_labels: 'index,mid,display_name\n"0\n1",/m/1,x\n',
        lists.read_list: '"a\nb",0,1,/m/1\n',
        esc50._read_table: f'{",".join(esc50.COLUMNS)}\n"1\n2",1,0,dog,1\n',
        lambda path: list(commands._read_list(path)): '"bed\n/a"\n',
        lambda path: list(read_table(path, ("file",))): '"a\nb",x\n',
    }
    for reader, text in broken.items():
        (tmp_path / "list.csv").write_text(text)
        with pytest.raises(ManifestError) as error:
            reader(tmp_path / "list.csv")
        assert "\n" not in str(error.value)
