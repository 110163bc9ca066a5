"""Names that are registered, and names that installed packages offer."""

import sys

import pytest

from igcnn.errors import ConfigError
from igcnn.networks import NETWORKS, build_network, register_network
from igcnn.registry import Registry

MODULE = """
from test_registry_items import registry
registry.add("{name}", "made by {name}", __name__)
"""


@pytest.fixture
def registry(monkeypatch):
    """A registry of texts with one built-in name, which installed modules can reach."""
    registry = Registry("thing", "igcnn.things", {"built_in": "built_in_thing"})
    monkeypatch.setitem(sys.modules, "test_registry_items", type("M", (), {"registry": registry}))
    return registry


def test_a_module_is_imported_when_its_name_is_looked_up(registry, install):
    install(
        "some-things",
        "[igcnn.things]\nfirst = first_thing\nsecond = second_thing\n",
        built_in_thing=MODULE.format(name="built_in"),
        first_thing=MODULE.format(name="first"),
        second_thing="raise RuntimeError('broken\\nin two lines')",
    )
    assert list(registry) == ["built_in", "first", "second"]
    assert "second" in registry
    assert len(registry) == 3
    assert not {"built_in_thing", "first_thing", "second_thing"} & set(sys.modules)
    assert registry["first"] == "made by first"
    assert not {"built_in_thing", "second_thing"} & set(sys.modules)
    assert registry["built_in"] == "made by built_in"
    with pytest.raises(ConfigError, match="the thing second of the package some-things: Runtime"):
        registry["second"]
    assert registry["first"] == "made by first"


def test_an_unknown_name_comes_with_the_nearest(registry, install):
    install("some-things", "[igcnn.things]\nfirst = first_thing\n")
    message = "unknown thing 'frist': did you mean first\\? choose one of built_in, first"
    with pytest.raises(ConfigError, match=message):
        registry["frist"]


@pytest.mark.parametrize(
    ("points", "source", "message"),
    [
        ("first = nowhere", "", "cannot import the thing first of the package things: Module"),
        ("first = first_thing:no", "", "AttributeError.*; repair or uninstall things"),
        ("first = first_thing", "", "first_thing of the package things does not register the"),
    ],
)
def test_what_a_package_does_wrong_is_named(registry, install, points, source, message):
    install("things", f"[igcnn.things]\n{points}\n", first_thing=source)
    with pytest.raises(ConfigError, match=message):
        registry["first"]


def test_two_packages_that_offer_one_name(registry, install):
    for package in ("a-things", "b-things"):
        install(package, "[igcnn.things]\nfirst = first_thing\n")
    with pytest.raises(ConfigError, match=r"offer a thing first: [ab]-things, [ab]-things; unin"):
        registry["first"]


def test_a_name_belongs_to_one_module(registry):
    registry.add("mine", 1, "here")
    registry.add("mine", 2, "here")  # a cell of a notebook that is run again
    assert registry["mine"] == 2
    with pytest.raises(ConfigError, match="there registers the thing mine, which here has"):
        registry.add("mine", 3, "there")
    with pytest.raises(ConfigError, match="built_in_thing has registered"):
        registry.add("built_in", 3, "there")
    assert registry["mine"] == 2


@pytest.mark.parametrize("name", ["", "../up", "a/b", "-net", "two words"])
def test_names_become_folders(registry, name):
    with pytest.raises(ConfigError, match="cannot be the name of a thing"):
        registry.add(name, 1, "here")


def test_no_package_can_replace_a_network_of_the_paper(install):
    install("bad", "[igcnn.networks]\nplain = bad_net\n", bad_net="raise SystemExit")
    assert build_network("plain", depth=5, L=2).module == "igcnn.networks.plain"
    assert list(NETWORKS).count("plain") == 1
    with pytest.raises(ConfigError, match=r"which igcnn\.networks\.plain has registered"):
        register_network("plain")(lambda *, num_classes=1, rng=None, dtype="": {})
