"""Run directories written by hand."""

from igcnn.training import Recipe, RunDirectory


def make_run(path, accuracies=(), **settings):
    """A run on disk with a row for each accuracy."""
    run = RunDirectory(path)
    run.create()
    epochs = settings.get("epochs", 4)
    config = {"net": "plain", "dataset": "digits", "epochs": epochs, "lr": 0.1, "seed": 0}
    config["lr_steps"] = list(Recipe(epochs).lr_steps)
    run.write_config(config | settings)
    for i, top1 in enumerate(accuracies, 1):
        losses = {"train_loss": 1 / i, "train_top1": top1, "test_loss": 2 / i}
        rest = {"test_top5": 99.0, "lr": 0.1, "seconds": 10.0 * i}
        run.append_epoch({"epoch": i, "step": 10 * i, "test_top1": top1, **losses, **rest})
    return run
