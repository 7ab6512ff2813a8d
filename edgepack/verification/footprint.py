"""How much memory a bundle needs to speak; to be run in a process of its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgepack.machine.memory import keep_few_kernels, peak_rss_bytes, return_large_blocks
from edgepack.report import Step
from edgepack.runtime.gpu.placement import ON_CPU
from edgepack.runtime.load_options import LoadOptions
from edgepack.runtime.loading import load
from edgepack.runtime.stages.flow import Condition
from edgepack.runtime.stages.solver import euler
from edgepack.verification import selftest

SECONDS = 10  # of audio
_TEXT_TOKENS, _STEPS = 40, 20
_SPREAD = 997  # tokens that differ from each other


def peak(folder: Path, runtime: str, threads: int, step: Step) -> int:
    """Peak resident bytes of this process after it spoke ten seconds of audio.

    What is said does not matter: speech tokens are counted up, so no text is needed, and the
    speaker is that of the self-test.
    """
    step(f"{runtime}: memory")
    return_large_blocks()
    keep_few_kernels()
    loaded = load(folder, runtime, threads, options=LoadOptions(wanted=ON_CPU))
    manifest, decoder = loaded.bundle.manifest, loaded.decoder
    host = manifest.host
    frames = SECONDS * manifest.sample_rate // host.vocoder.frame
    count = 1000 * frames // host.flow.frames(1000)
    tokens = (np.arange(count) * _SPREAD % manifest.host.language_model.speech_tokens).tolist()
    decoder.language_model.reset()
    block = decoder.prefix(list(range(_TEXT_TOKENS)))
    for token in tokens[:_STEPS]:
        decoder.language_model.run({"embeddings": block})
        block = decoder.embed_speech([token])
    calls = selftest.read(loaded.bundle)[manifest.stage_of("encoder")]
    once = euler(host.flow, 1)
    flow = replace(loaded.flow, memory=None)  # to be measured, whatever it takes
    mel = flow.mel(tokens, Condition(calls[0].feeds["speaker"][0]), solver=once)
    loaded.vocoder.synthesize(mel, loaded.vocoder.noise(mel.shape[2], None))
    return peak_rss_bytes()
