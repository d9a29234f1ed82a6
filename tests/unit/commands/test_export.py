"""`eat export TARGET MODEL OUT`: targets are found, and end in one line on error."""

import pytest
import torch

import eat
from eat.cli import main


def test_fairseq(parity_folder, tmp_path, capsys):
    source = parity_folder / "official_finetuned.pt"
    command = ["export", "fairseq", str(source), str(tmp_path / "new" / "x.pt")]
    main(command)
    spec = torch.randn(1, 128, 128)
    classifiers = [eat.load_classifier(path) for path in (source, command[-1])]
    assert torch.equal(*(classifier(spec) for classifier in classifiers))
    with pytest.raises(SystemExit, match="exists"):
        main(command)
    with pytest.raises(SystemExit, match="no such file"):
        main([*command[:2], str(tmp_path / "none"), str(tmp_path / "y.pt")])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.pt"]


@pytest.mark.parametrize("target", ["fairseq", "hf", "onnx"])
def test_what_exists_stays(target, parity_folder, tmp_path):
    source = str(parity_folder / "official_finetuned.pt")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("missing")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    for name in ("file", "link", "folder", "file/x"):
        with pytest.raises(SystemExit) as caught:
            main(["export", target, source, str(tmp_path / name)])
        assert str(tmp_path / name) in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("words", [["export"], ["export", "nobody", "a", "b"]])
def test_a_target_is_needed(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2 and "TARGET" in capsys.readouterr().err


def test_the_help_names_the_targets_without_torch(run_code):
    code = (
        "import sys; from eat.cli import make_parser\n"
        "make_parser('export').parse_args(['export', 'fairseq', 'a', 'b'])\n"
        "print('torch' in sys.modules)"
    )
    assert run_code(code)[0].split() == ["False"]
