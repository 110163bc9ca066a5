import pytest

from igcnn.errors import ConfigError
from igcnn.training import Recipe, preset_settings


def test_the_authors_recipe_for_cifar():
    recipe = Recipe(**preset_settings("paper", "cifar10"))
    assert (recipe.epochs, recipe.batch_size, recipe.lr) == (400, 64, 0.1)
    assert (recipe.momentum, recipe.weight_decay) == (0.9, 1e-4)
    assert recipe.lr_steps == (200, 300, 350)
    schedule = recipe.schedule(50_000)
    assert schedule.boundaries == (156_200, 234_300, 273_350)
    assert schedule.lr_at(156_200) == 0.1
    assert schedule.lr_at(156_201) == pytest.approx(0.01)


def test_the_authors_recipe_for_svhn():
    recipe = Recipe(**preset_settings(None, "svhn"))
    assert (recipe.epochs, recipe.lr_steps) == (40, (20, 30, 35))
    assert recipe.schedule(604_388).boundaries == (20 * 9443, 30 * 9443, 35 * 9443)


@pytest.mark.parametrize(
    ("epochs", "steps"),
    [(1, ()), (2, (1,)), (3, (1, 2)), (7, (3, 5, 6)), (164, (82, 123, 143))],
)
def test_steps_follow_the_epochs(epochs, steps):
    assert Recipe(epochs=epochs).lr_steps == steps


def test_a_training_set_below_one_batch_has_one_update_an_epoch():
    assert Recipe(epochs=4).schedule(10).boundaries == (2, 3)


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
    ],
)
def test_constants_out_of_range(arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        Recipe(**{"epochs": 4, **arguments})


def test_unknown_preset():
    with pytest.raises(ConfigError, match="paper, digits"):
        preset_settings("papper", "cifar10")
