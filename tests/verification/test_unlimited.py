"""A bundle whose integer weights no limit holds does not verify."""

import msgspec
import pytest

from edgepack.bundle.bundle import Bundle
from edgepack.bundle.metrics import Limit, Quality
from edgepack.verification import gates


@pytest.mark.slow
def test_integer_weights_need_limits(int8_demo: Bundle) -> None:
    quality = int8_demo.manifest.quality
    assert quality
    assert gates.unlimited(int8_demo.manifest, "ort") == []
    none = msgspec.structs.replace(int8_demo.manifest, quality=None)
    assert len(gates.unlimited(none, "ort")) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "limits", [{}, {"lm_kld": Limit(high=1.0, optional=True)}], ids=["none", "optional"]
)
def test_each_of_them_does(int8_demo: Bundle, limits: dict[str, Limit]) -> None:
    quality = int8_demo.manifest.quality
    assert quality
    held: Quality = msgspec.structs.replace(quality, limits={**quality.limits, "ort": limits})
    manifest = msgspec.structs.replace(int8_demo.manifest, quality=held)
    assert any(words.startswith("speech_lm at int8") for words in gates.unlimited(manifest, "ort"))
    assert gates.unlimited(manifest, "tflite") == []
