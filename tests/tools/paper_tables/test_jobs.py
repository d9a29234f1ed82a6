"""Jobs: commands and order."""

from pathlib import Path

from paper_tables.jobs import Job, in_order


def job(name, *needs):
    return Job(name, Path("OUT") / name, Path("recipe"), "x.yaml", {}, 1, needs=needs)


def test_command():
    folder, recipe = Path("OUT/run"), Path("recipes/ESC50")
    single = Job("x", folder, recipe, "x.yaml", {"lr": 0.1}, 1, ("--device", "cpu"))
    words = "train.py hparams/x.yaml --output_folder OUT/run --lr 0.1 --device cpu"
    assert " ".join(single.command) == words
    four = Job("x", folder, recipe, "x.yaml", {"lr": 0.1}, 1, processes=4)
    launcher = "-m torch.distributed.run --standalone --nproc_per_node=4 "
    assert " ".join(four.command) == launcher + words.removesuffix(" --device cpu")


def test_jobs_are_equal_if_their_folders_are():
    one, same, other = (
        Job(name, Path(folder), Path(), "x.yaml", {}, 1)
        for name, folder in [("a", "OUT/1"), ("b", "OUT/1"), ("a", "OUT/2")]
    )
    assert len({one, same, other}) == 2 and one == same != other


def test_in_order_returns_each_job_once_after_its_needs():
    start = job("start")
    middle = job("middle", start)
    end = job("end", middle, start)
    again = job("start")  # the same folder
    ordered = in_order([end, again, middle, job("other")])
    assert ordered == [start, middle, end, job("other")]
