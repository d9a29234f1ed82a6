"""Tables give back the values that were written, or an error that names the line."""

import csv
import io
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eat.data.tables import read_table
from eat.errors import ManifestError
from eat.utils.text import BLANK, clean

COLUMNS = ("file", "labels")
DIALECTS = {
    "Excel": {},
    "semicolons": {"delimiter": ";"},
    "tabs": {"delimiter": "\t"},
    "all quoted": {"quoting": csv.QUOTE_ALL},
    "Unix": {"quoting": csv.QUOTE_ALL, "lineterminator": "\n"},
    "old Macintosh": {"quoting": csv.QUOTE_ALL, "lineterminator": "\r"},
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")


def read(path, content, columns=COLUMNS, **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    rows = read_table(path, columns, **options)
    return [(row.line, *row.values.values()) for row in rows]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "table.csv"


@pytest.mark.parametrize(
    "content",
    [
        "file,labels\na.wav,dog\n",
        "labels,note,file\ndog,x,a.wav",
        " File , LABELS \n a.wav , dog \n",
        '"file","labels"\n"a.wav","dog"\n',
        '"file" , "labels"\n"a.wav" ,  "dog" \n',
        "file;labels\na.wav;dog\n",
        "file\tlabels\na.wav\tdog\n",
        "sep=;\nfile;labels\na.wav;dog\n",
        '"sep=,"\nfile,labels\na.wav,dog\n',
        "file,labels,,\na.wav,dog,,\n,,,\n",
        "file,labels\na.wav,dog,,,\n",
        "\n \n\u00a0\nfile,labels\n\n,\na.wav,dog\n\n",
        "file,labels\na.wav,dog\nfile,labels\n",
        "\ufefffile,labels\na.wav,dog\n\ufefffile,labels\n",
        "file,labels\na.wav,\u00a0dog\u200b\n",
    ],
)
def test_one_meaning_one_value(path, content):
    path.write_text(content)
    [row] = read_table(path, COLUMNS)
    assert row.values == {"file": "a.wav", "labels": "dog"}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "line 1: .*file,labels"),
        ("a.wav,dog\n", "line 1: .*file,labels.*'a.wav,dog'"),
        ("file,labels_\na.wav,dog\n", "'labels'.*'labels_'"),
        ("file,labels,Labels\na.wav,dog,x\n", "'labels' occurs twice"),
        ("file|labels\na.wav|dog\n", "'file|labels'".replace("|", r"\|")),
        ("file,labels\n\na.wav,dog,cat\n", "line 3: 3 fields, not 2"),
        ("file,labels\n\na.wav\n", "line 3: 1 fields, not 2"),
        ('file,labels\n"a.wav,dog\nb.wav,cat\n', "line 2: "),
        ('file,labels\na.wav,dog\n"b" x,cat\n', "line 3: "),
        ('file,labels\n"a.wav,dog\nb.wav,"cat"\n', "line 2: "),
        ("file,labels\n#NAME?,dog\n", "line 2.*#NAME?"),
        (f"file,labels\na.wav,{'x' * 200_000}\n", "line 2: "),
        (f'file,labels\na.wav,"{"x" * 200_000}" \n', "line 2: "),
    ],
)
def test_what_has_no_meaning_is_named(path, content, fault):
    with pytest.raises(ManifestError, match=f"^{path}: .*{fault}"):
        read(path, content)


def test_a_header_is_recognized_by_its_names(path):
    columns = ("id", "start", "labels")
    for head in ("", "id,start,labels\n", '"ID", "START","Labels"\n'):
        rows = read(path, head + '-x, 0, "m,n"\n', columns, header="optional")
        assert rows == [(1 + bool(head), "-x", "0", "m,n")]
    assert read(path, "", columns, header="optional") == []


def test_comments_are_skipped_but_not_the_errors_of_a_spreadsheet(path):
    content = '# "a,\n#id,start\n"# id, x",\nx,0\n #y,0\n'
    options = {"header": "optional", "comment": "#"}
    assert read(path, content, ("id", "start"), **options) == [(4, "x", "0")]
    with pytest.raises(ManifestError, match="line 6 .*#NAME"):
        read(path, content + "#NAME?,0\n", ("id", "start"), **options)


def test_optional_columns(path):
    options = {"optional": ("split", "fold"), "aliases": {"label": "labels"}}
    content = "file,label,split\na,x,eval\nb,y\n"
    [one, two] = read_table(path_of(path, content), COLUMNS, **options)
    assert one.values == {"file": "a", "labels": "x", "split": "eval"}
    assert two.values == {"file": "b", "labels": "y", "split": ""}


def path_of(path, content):
    path.write_text(content)
    return path


def test_exact_columns_keep_their_form(path):
    name = unicodedata.normalize("NFD", "é.wav ")
    content = f'file,labels\n"{name}","{name}"\n'
    assert read(path, content, exact=("file",)) == [(2, name, clean(name))]


# Zero bytes and byte-order marks are tested above.
ALPHABET = st.characters(exclude_characters="\0\ufeff", exclude_categories=["Cs"])
FIELDS = st.text(st.one_of(st.sampled_from('",;\t\r\n #é='), ALPHABET), max_size=8)


@settings(max_examples=100)
@given(
    rows=st.lists(st.tuples(FIELDS, FIELDS), max_size=5),
    dialect=st.sampled_from(sorted(DIALECTS)),
    encoding=st.sampled_from(ENCODINGS),
)
def test_what_python_writes_is_read(tmp_path_factory, rows, dialect, encoding):
    text = io.StringIO()
    csv.writer(text, **DIALECTS[dialect]).writerows([COLUMNS, *rows])
    path = tmp_path_factory.mktemp("table") / "table.csv"
    found = read(path, text.getvalue().encode(encoding))
    expected = [tuple(map(clean, row)) for row in rows if any(map(clean, row))]
    assert [values for _, *values in found] == list(map(list, expected))


@settings(max_examples=100)
@given(
    st.one_of(
        st.binary(max_size=80),
        st.text(st.sampled_from('file,labels;\t"\r\n \0é#='), max_size=80),
    )
)
@example(b"\xff\xfe\xff")
@example('sep=,\n"')
def test_any_file_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    for options in ({}, {"header": "optional", "comment": "#", "exact": ("file",)}):
        for head in (b"", b"file,labels\n"):
            body = content if isinstance(content, bytes) else content.encode()
            try:
                for _, *values in read(path, head + body, **options):
                    assert len(values) == 2 and any(v.strip(BLANK) for v in values)
            except ManifestError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
