"""Where numbers come from, in words."""

from paper_tables.provenance import commands, coverage, deviations, versions


def test_coverage_is_told_once_for_each_corpus_as_runs_saw_it(study, record):
    plan = study(seeds=(1, 2, 3))
    jobs = [plan.pretraining(seed) for seed in (1, 2, 3)]
    records = {job.name: record(0.1) for job in jobs}
    paper = {"pretrain": {"used": 1000, "used_in_paper": None}}
    records["pretrain-seed3"]["data"] = paper
    assert coverage(jobs, records) == [
        "Clips at hand, of the paper's (AudioSet): eval 600 of 18,884.",
        "Clips at hand, of the paper's (AudioSet): pretrain 1,000.",
    ]
    assert coverage(jobs, {}) == []


def test_other_commands_than_planned_are_told(study, record):
    plan = study(seeds=(1, 2, 3, 4))
    jobs = [plan.pretraining(seed) for seed in (1, 2, 3, 4)]
    records = {job.name: record(0.1, command=job.command) for job in jobs}
    assert deviations(jobs, records) == []
    for seed in (1, 2):
        longer = [*jobs[seed - 1].command, "--lr", "0.1"]
        records[f"pretrain-seed{seed}"]["command"] = longer
    shorter = jobs[2].command[:-2]
    records["pretrain-seed3"]["command"] = shorter
    del records["pretrain-seed4"]["command"]
    assert deviations(jobs, records) == [
        "Not as planned, with `--lr 0.1`: 2 runs (pretrain-seed1, ...).",
        "Not as planned, without `--grad_accumulation_factor 4`: 1 run "
        "(pretrain-seed3).",
        "Not as planned, started by hand, settings unchecked: 1 run (pretrain-seed4).",
    ]


def test_processes_in_place_of_accumulated_batches_are_as_planned(study, record):
    planned = study().pretraining(1)
    made = study(processes=4).pretraining(1)
    assert made.command != planned.command
    records = {planned.name: record(0.1, command=made.command)}
    assert deviations([planned], records) == []
    records[planned.name]["command"] = [*made.command, "--lr", "400"]
    assert deviations([planned], records) == [
        "Not as planned, with `--lr 400`: 1 run (pretrain-seed1)."
    ]


def test_commands_are_those_made_else_those_planned(study, record):
    start = study().pretraining(1)
    tuning = study().finetuning("AS-20K", start, 1)
    made = record(0.1, command=["train.py", "as_made"])
    lines = commands([tuning, tuning], {"pretrain-seed1": made}).splitlines()
    assert lines[:2] == [
        "# pretrain-seed1: done",
        "(cd recipes/AudioSet && python train.py as_made)",
    ]
    assert lines[2] == "# AS-20K-seed1: not run, some 6 GPU hours"
    assert lines[3].startswith(
        "(cd recipes/AudioSet && python train.py hparams/finetune_as20k.yaml "
    )
    assert len(lines) == 4


def test_versions_are_counted(study, record):
    jobs = [study().pretraining(seed) for seed in (1, 2, 3)]
    records = {job.name: record(0.1) for job in jobs}
    records["pretrain-seed3"]["versions"] = {"eat": "0.2.0", "git": "abc"}
    assert versions(jobs, records) == [
        "- made with eat 0.1.0, git revision unknown, on CPU x: 2",
        "- made with eat 0.2.0, git abc, on CPU x: 1",
    ]
