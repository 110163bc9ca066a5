"""Several seeds: mean and standard deviation of what their runs came to."""

import json

import pytest

from igcnn.errors import CheckpointError
from igcnn.training import RunDirectory
from igcnn.training.seeds import seed_directory, seed_table, summarise_seeds, write_summary


def finished(folder, values):
    for seed, (best, last) in values.items():
        run = RunDirectory(seed_directory(folder, seed))
        run.create()
        run.write_result({"best_top1": best, "last_top1": last, "step": 1})


def test_mean_and_deviation_of_a_sample(tmp_path):
    finished(tmp_path, {0: (90.0, 80.0), 1: (92.0, 80.0), 7: (94.0, 80.0)})
    summary = summarise_seeds(tmp_path, [0, 1, 7])
    # squares of −2, 0 and 2 over 3 − 1
    assert summary["best_top1"] == {"mean": 92.0, "std": 2.0}
    assert summary["last_top1"] == {"mean": 80.0, "std": 0.0}
    assert summary["seeds"][2] == {"seed": 7, "best_top1": 94.0, "last_top1": 80.0}
    assert json.loads(write_summary(tmp_path, summary).read_text()) == summary
    assert seed_table(summary) == [
        "seed      best top-1      last top-1",
        "   0         90.00 %         80.00 %",
        "   1         92.00 %         80.00 %",
        "   7         94.00 %         80.00 %",
        "mean  92.00 ± 2.00 %  80.00 ± 0.00 %",
    ]


def test_one_seed_has_no_deviation(tmp_path):
    finished(tmp_path, {3: (90.0, 80.0)})
    summary = summarise_seeds(tmp_path, [3])
    assert summary["best_top1"] == {"mean": 90.0, "std": None}
    assert seed_table(summary)[-1] == "mean     90.00 %     80.00 %"


def test_a_run_without_result_is_named(tmp_path):
    finished(tmp_path, {0: (90.0, 80.0)})
    with pytest.raises(CheckpointError, match=r"seed1.result\.json"):
        summarise_seeds(tmp_path, [0, 1])
