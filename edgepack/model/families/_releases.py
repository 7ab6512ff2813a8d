"""Releases of the three families, as public listings showed them in November 2026.

Sizes are of files of exactly these bytes, hashes beginnings of SHA-256. Numbers of weights are
those of the networks that the published configurations make.
"""

from collections.abc import Mapping

from edgepack.model.families import _qwen2
from edgepack.model.releases import KnownRelease, Releases

_SPEAKERS = frozenset({"中文女", "中文男", "日语男", "粤语女", "英文女", "英文男", "韩语女"})
_FLOW1, _HIFT1 = 104_874_752, 20_460_591
_300M: Mapping[str, int] = {"llm": 310_718_465, "flow": _FLOW1, "hift": _HIFT1}
_50_HZ = {"flow.input_frame_rate": 50}
# Two files of one name: their hashes tell the tokenizer of 25 tokens a second from that of 50.
_TOKENIZER_50_HZ = {"speech_tokenizer_v1.onnx": "23b5a723"}
_TOKENIZER_25_HZ = {"speech_tokenizer_v1.onnx": "56285ddd"}

COSYVOICE1 = Releases(
    "CosyVoice 1",
    (
        KnownRelease(
            "CosyVoice-300M",
            parameters=_300M,
            settings=_50_HZ,
            speakers=frozenset(),
            hashes=_TOKENIZER_50_HZ,
        ),
        # The same networks and the same speakers; no hash of their weights is known.
        *(
            KnownRelease(
                name,
                parameters=_300M,
                settings=_50_HZ,
                speakers=_SPEAKERS,
                hashes=_TOKENIZER_50_HZ,
            )
            for name in ("CosyVoice-300M-SFT", "CosyVoice-300M-Instruct")
        ),
        KnownRelease(
            "CosyVoice-300M-25Hz",
            parameters={"flow": _FLOW1, "hift": _HIFT1},
            settings={"flow.input_frame_rate": 25},
            hashes=_TOKENIZER_25_HZ,
        ),
    ),
)

_2_0_5B: Mapping[str, int] = {"llm": 505_803_812, "flow": 112_549_360, "hift": 20_821_295}

COSYVOICE2 = Releases(
    "CosyVoice2",
    (
        KnownRelease("CosyVoice2-0.5B", parameters=_2_0_5B, configuration="cosyvoice2.yaml"),
        # Revision 9bd5b08 on Hugging Face is one of these.
        KnownRelease(
            "CosyVoice2-0.5B of before late April 2025",
            parameters=_2_0_5B,
            configuration="cosyvoice.yaml",
        ),
    ),
    (_qwen2.HEAD,),
)

COSYVOICE3 = Releases(
    "CosyVoice3",
    (
        KnownRelease(
            "Fun-CosyVoice3-0.5B-2512",
            revision="29e01c4",
            parameters={"llm": 506_148_480, "flow": 332_257_120, "hift": 20_779_887},
            sizes={
                "llm.pt": 2_024_669_519,
                "llm.rl.pt": 2_024_682_701,
                "flow.pt": 1_329_116_148,
                "hift.pt": 83_202_622,
                "campplus.onnx": 28_303_423,
                "speech_tokenizer_v3.onnx": 969_451_503,
            },
            variants={"llm.pt": "base", "llm.rl.pt": "RL"},
        ),
    ),
    (_qwen2.HEAD,),
)
