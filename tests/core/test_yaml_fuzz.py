# SPDX-License-Identifier: Apache-2.0
"""Files of rigs and configurations that a hand or a disk has spoilt: read, or refused by a line."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeldistill_core.config_files import read_config, to_yaml
from labeldistill_core.errors import ConfigError
from labeldistill_core.presets import find_preset
from labeldistill_core.synthetic.lens import lens_rays
from labeldistill_core.synthetic.rig import load_rig
from labeldistill_core.yaml_text import parsed_yaml
from tests.support.fuzzing import fuzz

RIG = """
cameras:
  - {name: WIDE, size: [48, 32], field_of_view: 90, position: [1.8, 0.0, 1.4], rate: 10,
     distortion: {model: plumb_bob, coefficients: [-0.2, 0.05, 0.0, 0.0, 0.0]}, phase: -0.03}
  - {name: LEFT, size: [32, 32], intrinsics: {fx: 60, fy: 60, cx: 17, cy: 15},
     position: [1.0, 0.8, 1.3], yaw: 90, rate: 10, phase: -0.035}
lidar: {position: [0.8, 0.0, 1.9], yaw: -90, rotation: null}
"""
CONFIG = to_yaml(find_preset("demo"))
WORDS = (
    ".nan", ".inf", "-.inf", "1e400", "-1", "0", "null", "true", "''", "[]", "{}", "*a", "&a [*a]",
    "2020-13-45", "2020-01-01 25:61:61", "!!int x", "!!float x", "!!binary '@'", "!!python/name:os",
    "9" * 5000, "0x" + "f" * 400, "[" * 2000, "{a: " * 500, "\0", "\x1b[31m", '"\\ud800"',
    "1:2:3:99", "? [1]", "<<: 1", "- 1", "\t", "%YAML 9.9", "---", "../../x", "1e-300", "1e300",
    "\u2028", "!!int ''", "!!float ''", "!!bool x", "!!timestamp x", "!!set [x]", "!!map [1]",
)  # fmt: skip


def spoilt(text: str, seed: int) -> bytes:
    """A text with a few changes of a hand, and sometimes of a disk."""
    random = Random(seed)
    for _ in range(random.randint(1, 3)):
        begin = random.randrange(len(text))
        kind = random.randrange(4)
        if kind == 0:  # a value
            end = next((i for i in range(begin, len(text)) if text[i] in ",]}\n"), len(text))
            start = max(text.rfind(c, 0, begin) for c in ":[,") + 1
            text = text[:start] + " " + random.choice(WORDS) + text[end:]
        elif kind == 1:
            text = text[:begin] + random.choice(WORDS) + text[begin:]
        elif kind == 2:
            text = text[:begin] + text[begin + random.randint(1, 30) :]
        else:
            text = text[:begin] + random.choice("{}[]:,&*!|>'\"%@\n #") + text[begin:]
        text = text or " "
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    if random.random() < 0.2:
        data[random.randrange(len(data))] = random.randrange(256)
    return bytes(data)


def refused(error: ConfigError, file: Path) -> None:
    text = str(error)
    assert str(file) in text
    assert text.isprintable(), text
    assert len(text) < 4000, text


@fuzz(150)
@given(seed=st.integers(0, 2**32))
def test_any_rig(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    file = tmp_path_factory.getbasetemp() / "rig.yaml"
    file.write_bytes(spoilt(RIG, seed))
    try:
        rig = load_rig(file)
    except ConfigError as error:
        refused(error, file)
        return
    assert rig.ego_from_lidar.translation.shape == (3,)
    for camera in rig.cameras:
        assert camera.calibration.intrinsics_px.shape == (3, 3)
        if camera.distortion and camera.size[0] * camera.size[1] < 10_000:
            try:
                lens_rays(camera)
            except ConfigError:
                continue


@fuzz(60)
@given(seed=st.integers(0, 2**32))
def test_any_configuration(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    file = tmp_path_factory.getbasetemp() / "config.yaml"
    file.write_bytes(spoilt(CONFIG, seed))
    try:
        preset = read_config(file)
    except ConfigError as error:
        refused(error, file)
        return
    assert preset.student.cameras


@pytest.mark.parametrize("word", WORDS)
def test_words_that_are_no_value(word: str) -> None:
    why = ""
    try:
        parsed_yaml(f"key: {word}\n")
    except ConfigError as error:
        why = str(error)
    assert len(why) < 700
    assert not why or why.isprintable()


def test_aliases_are_refused() -> None:
    """Nine lines of them stand for 9^9 values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    with pytest.raises(ConfigError, match=r"an alias \(\*\) stands in line 2"):
        parsed_yaml("\n".join(lines))
    with pytest.raises(ConfigError, match="alias"):
        parsed_yaml("a: &a {b: *a}")


def test_exponents_are_numbers() -> None:
    assert parsed_yaml("{a: 1e3, b: 1.5E-2}") == {"a": 1000.0, "b": 0.015}


@pytest.mark.parametrize("text", ['key: "\\ud800"', '"\\udfff": 1', '- [["\\ud83d"]]'])
def test_half_a_character_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="surrogates not allowed"):
        parsed_yaml(text)
