"""A bundle whose integer weights no limit holds does not verify."""

import msgspec
import pytest

from edgepack.bundle import Bundle
from edgepack.metrics import Limit, Quality
from edgepack.verification import gates


def test_integer_weights_need_limits(small: Bundle) -> None:
    quality = small.manifest.quality
    assert quality
    assert gates.unlimited(small.manifest, "ort") == []
    none = msgspec.structs.replace(small.manifest, quality=None)
    assert len(gates.unlimited(none, "ort")) == 5


@pytest.mark.parametrize(
    "limits", [{}, {"lm_kld": Limit(high=1.0, optional=True)}], ids=["none", "optional"]
)
def test_each_of_them_does(small: Bundle, limits: dict[str, Limit]) -> None:
    quality = small.manifest.quality
    assert quality
    held: Quality = msgspec.structs.replace(quality, limits={**quality.limits, "ort": limits})
    manifest = msgspec.structs.replace(small.manifest, quality=held)
    assert any(words.startswith("speech_lm at int8") for words in gates.unlimited(manifest, "ort"))
    assert gates.unlimited(manifest, "tflite") == []
