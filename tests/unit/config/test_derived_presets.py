"""Presets that are another preset with changes: `preset: NAME` in the file."""

import pytest
import yaml

from sidecar.cli.main import main
from sidecar.config.presets import load_preset, preset_aliases, preset_names, read_preset
from sidecar.config.scheme_keys import SCHEME
from sidecar.config.yaml_source import read_shipped

DERIVED = [name for name in preset_names() if "preset" in read_shipped("presets", name, preset_names())]


def test_a_derived_preset_differs_in_what_its_file_says_and_in_nothing_else() -> None:
    sandbox, paypal = read_preset("paypal-sandbox"), read_preset("paypal")
    differing = {key for key in sandbox | paypal if sandbox.get(key) != paypal.get(key)}
    assert differing == {"title", "notes", "keys", "settings"}
    assert sandbox["keys"]["certificate"]["names"] == paypal["keys"]["certificate"]["names"]
    assert "api\\.sandbox\\.paypal" in sandbox["keys"]["certificate"]["url"]
    assert sandbox["settings"]["roots"] == paypal["settings"]["roots"]
    assert sandbox["settings"]["webhook_id"]["pattern"] == paypal["settings"]["webhook_id"]["pattern"]


def test_a_derived_preset_says_so_nowhere_but_in_its_file() -> None:
    assert {"paypal-sandbox", "truelayer-sandbox"} <= set(DERIVED)
    for name in DERIVED:
        assert "preset" not in read_preset(name)
        assert load_preset(name).name == name
        assert not load_preset(name).aliases
    assert not set(preset_aliases().values()) & set(DERIVED)


def test_a_derived_preset_is_printed_whole_ready_to_copy(capsys: pytest.CaptureFixture[str]) -> None:
    for name in DERIVED:
        assert main(["presets", name]) == 0
        assert yaml.safe_load(capsys.readouterr().out) == read_preset(name)
    SCHEME.read(read_preset("truelayer-sandbox"))
