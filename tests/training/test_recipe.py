import pytest

from igcnn.errors import ConfigError
from igcnn.training import Recipe, preset_settings


def test_the_authors_recipe_for_cifar():
    recipe = Recipe(**preset_settings("paper", "cifar10"))
    assert (recipe.epochs, recipe.batch_size, recipe.lr) == (400, 64, 0.1)
    assert (recipe.momentum, recipe.weight_decay) == (0.9, 1e-4)
    assert recipe.lr_steps == (200, 300, 350)
    schedule = recipe.make_schedule(50_000)
    assert schedule.boundaries == (156_200, 234_300, 273_350)
    assert schedule.lr_at(156_200) == 0.1
    assert schedule.lr_at(156_201) == pytest.approx(0.01)


def test_the_authors_recipe_for_svhn():
    recipe = Recipe(**preset_settings(None, "svhn"))
    assert (recipe.epochs, recipe.lr_steps) == (40, (20, 30, 35))
    assert recipe.make_schedule(604_388).boundaries == (20 * 9443, 30 * 9443, 35 * 9443)


@pytest.mark.parametrize(
    ("epochs", "steps"),
    [(1, ()), (2, (1,)), (3, (1, 2)), (7, (3, 5, 6)), (164, (82, 123, 143))],
)
def test_steps_follow_the_epochs(epochs, steps):
    assert Recipe(epochs=epochs).lr_steps == steps


def test_a_training_set_below_one_batch_has_one_update_an_epoch():
    assert Recipe(epochs=4).make_schedule(10).boundaries == (2, 3)


def test_digits_has_its_own_preset():
    assert preset_settings(None, "digits") == preset_settings("digits", "cifar10")
    assert preset_settings(None, "cifar100") == preset_settings("paper", "cifar100")


@pytest.mark.parametrize(
    "arguments",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": float("nan")},
        {"lr": -1},
        {"momentum": 1},
        {"weight_decay": float("inf")},
        {"lr_steps": (5, 3)},
        {"lr_steps": (0,)},
        {"lr_min": 0.2},
        {"label_smoothing": 1},
        {"average": -0.1},
        {"validation": float("nan")},
        {"patience": 0, "validation": 0.1},
        {"warmup_epochs": 4},
        {"schedule": "cosin"},
        {"schedule": "linear", "lr_min": 0.01},
    ],
)
def test_constants_out_of_range(arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        Recipe(**{"epochs": 4, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": "cosine", "lr_steps": (2,)}, "belong to the schedule steps, not to cosine"),
        ({"schedule": "cosine", "lr_factor": 0.5}, "cosine has no lr_factor"),
        ({"schedule": "constant", "lr_min": 0.01}, "constant has no lr_min"),
        ({"patience": 3}, "hold some out, for example --validation 0.1"),
    ],
)
def test_contradictions(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Recipe(epochs=4, **arguments)


def test_what_is_beyond_the_papers_recipe_is_off():
    for dataset in ("cifar10", "svhn", "imagenet", "digits"):
        recipe = Recipe(**preset_settings(None, dataset))
        assert (recipe.schedule, recipe.lr_factor) == ("steps", 0.1)
        beyond = recipe.warmup_epochs, recipe.lr_min, recipe.label_smoothing, recipe.average
        assert (*beyond, recipe.validation, recipe.patience) == (0, 0, 0, 0, 0, None)
        assert recipe.freeze == ()


def test_schedules_count_the_updates_that_a_run_makes():
    """100 images in batches of 32 are 4 updates an epoch: the last batch is completed."""
    common = {"epochs": 3, "batch_size": 32, "warmup_epochs": 0.5}
    cosine = Recipe(**common, schedule="cosine").make_schedule(100)
    assert cosine.lr_at(1) == pytest.approx(0.05)
    assert [cosine.lr_at(u) for u in (2, 3, 8, 13)] == pytest.approx([0.1, 0.1, 0.05, 0])
    falling = Recipe(**common, schedule="exponential").make_schedule(100)
    rates = [falling.lr_at(u) for u in (2, 6, 7, 11, 15)]  # 0, 0, 1, 2, 3 whole epochs later
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.0001])
    assert Recipe(**common, schedule="constant").make_schedule(100).lr_at(99) == 0.1
    assert Recipe(**common).make_schedule(100).lr_at(1) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("images", "epochs", "batch_size"),
    [(1, 200, 8), (20, 200, 8), (128, 200, 16), (1000, 188, 64), (10_000, 20, 64)],
)
def test_photos_are_trained_on_for_about_3000_updates(images, epochs, batch_size):
    assert preset_settings(None, "folder", images) == {"epochs": epochs, "batch_size": batch_size}
    assert preset_settings("photos", "cifar10") == {}  # as long as nobody has counted them
    assert preset_settings("paper", "folder", images) == {"epochs": 400}


def test_the_recipe_of_igcv3():
    """lr 0.045, times 0.98 an epoch, plain momentum."""
    recipe = Recipe(**preset_settings("igcv3", "imagenet"))
    assert (recipe.epochs, recipe.batch_size, recipe.weight_decay) == (480, 96, 4e-5)
    rates = recipe.make_schedule(960)
    assert [rates.lr_at(u) for u in (1, 11, 21)] == pytest.approx([0.045, 0.0441, 0.043218])
    assert recipe.plain_momentum
    assert "momentum 0.9 (plain)" in recipe.describe()
    small = Recipe(**preset_settings("igcv3", "cifar10"))
    assert (small.epochs, small.lr, small.lr_steps) == (400, 0.1, (200, 300, 350))
    assert small.plain_momentum
    assert not Recipe(**preset_settings("paper", "cifar10")).plain_momentum


def test_unknown_preset():
    with pytest.raises(ConfigError, match="paper, igcv3, digits, photos"):
        preset_settings("papper", "cifar10")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "lr 0.1 (×0.1 after epochs: 2, 3), momentum 0.9, weight decay 0.0001"),
        (
            {"schedule": "cosine", "warmup_epochs": 1},
            "lr 0.1 (cosine to 0), momentum 0.9, weight ",
        ),
        ({"schedule": "exponential"}, "lr 0.1 (×0.1778 per epoch, at least 0), "),
        ({"schedule": "constant", "freeze": ("g0_*", "g1_*")}, "0.0001, frozen g0_*, g1_*"),
        (
            {"label_smoothing": 0.1, "average": 0.999, "validation": 0.1, "patience": 5},
            ", label smoothing 0.1, average of the weights 0.999, validation 0.1, patience 5",
        ),
    ],
)
def test_in_a_line(arguments, text):
    assert text in Recipe(epochs=4, **arguments).describe()
    assert Recipe(epochs=4, **arguments).describe().startswith("epochs 4, batch size 64, lr 0.1 (")
