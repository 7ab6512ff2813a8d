"""`tts.npz`: whole utterances, streamed and not, and the modes of the original's interface."""

import re
from dataclasses import replace
from typing import cast

import numpy as np

from edgepack.runtime.audio.waveform import Recording
from edgepack.runtime.stages.chunks import Chunk, ChunkedSynthesis
from edgepack.runtime.stages.decode import Context
from edgepack.runtime.stages.flow import Condition, change_speed
from edgepack.runtime.stages.sampling import Sampler, greedy
from edgepack.runtime.strategies.schedule.growing_chunks import GrowingChunks
from edgepack.runtime.strategies.schedule.growing_mel import GrowingMel
from edgepack.verification.quality import mel_cepstral_distortion
from edgepack.verification.reference import DISTORTION_DB, UTTERANCE, BundleUnderTest, Vectors

_SLOW_TOKENS, _SHORT_TOKENS = 30, 20
_AGAIN_HOP = 100  # a second stream of the original starts with the hop the first one ended with
_RATIO = 5  # speech tokens a text token, at most


def check(v: Vectors, subject: BundleUnderTest, sampler: Sampler = greedy) -> None:
    """Compare every array of the file; `sampler` is what chose tokens when it was recorded."""
    if "silent_in" in v:
        kept = filter(subject.loaded.decoder.keeper(), v.ids("silent_in"))
        v.compare("silent_out", np.array(list(kept)), 0.0)
    if "tts_token" in v:
        _offline(v, subject)
        _streams(v, subject)
    if "api_prompt_wav" in v:
        _interface(v, subject, sampler)


def _condition(v: Vectors) -> Condition:
    v.unused("rand_ini", "initial phases of the harmonics, which have no effect")
    return Condition(v["tts_embedding"], v.ids("tts_prompt_token"), v["tts_prompt_feat"])


def _offline(v: Vectors, subject: BundleUnderTest) -> None:
    flow, vocoder = subject.loaded.flow, subject.loaded.vocoder
    tokens, condition = v.ids("tts_token"), _condition(v)
    mels = {"offline": flow.mel(tokens, condition)}
    for name in v:
        if match := re.fullmatch(r"(speed(\d)(\d))_mel", name):
            speed = int(match[2]) + int(match[3]) / 10
            mels[match[1]] = change_speed(flow.mel(tokens[:_SLOW_TOKENS], condition), speed)
    for run, mel in mels.items():
        v.compare(f"{run}_mel", mel)
        if f"{run}_mel" in v:
            recorded = v.arrays[f"{run}_mel"]
            sound = vocoder.synthesize(recorded, vocoder.noise(recorded.shape[2], None))
            v.compare(f"{run}_wav", sound.audio, UTTERANCE)


def _streams(v: Vectors, subject: BundleUnderTest) -> None:
    stream = _as_original(subject.loaded.stream)
    tokens, condition = v.ids("tts_token"), _condition(v)
    runs = {
        "stream": (tokens, None),
        "stream_again": (tokens, _AGAIN_HOP),
        "short_stream": (tokens[:_SHORT_TOKENS], None),
    }
    for run, (given, hop) in runs.items():
        chunks = list(stream.run(given, condition, None, hop))
        v.compare(f"{run}_chunk_samples", np.array([c.audio.shape[1] for c in chunks]), 0.0)
        mels = _vocoded(stream, chunks)
        v.compare(f"{run}_hift_frames", np.array([mel.shape[2] for mel in mels]), 0.0)
        names = [f"{run}_hift_mel_{number}" for number in range(len(chunks))]
        for name, mel in zip(names, mels, strict=True):
            v.compare(name, mel)
        if all(name in v for name in names):
            v.compare(f"{run}_wav", _revoiced(stream, [v.arrays[n] for n in names]), UTTERANCE)
        else:
            _sounds_like(v, subject, f"{run}_wav", np.concatenate([c.audio for c in chunks], 1))


def _as_original(stream: ChunkedSynthesis) -> ChunkedSynthesis:
    """With the last chunk whole, whatever the bundle was built for."""
    return replace(stream, settings=stream.settings.ending(continued=False))


def _vocoded(stream: ChunkedSynthesis, chunks: list[Chunk]) -> list[np.ndarray]:
    """The mel that the original gives its vocoder for each chunk; all so far if it grows."""
    mels = [chunk.mel for chunk in chunks]
    if isinstance(stream, GrowingMel):
        return [np.concatenate(mels[: number + 1], 2) for number in range(len(mels))]
    return mels


def _revoiced(stream: ChunkedSynthesis, mels: list[np.ndarray]) -> np.ndarray:
    """Audio [1, n] of the recorded mels of a stream's chunks."""
    finals = [number == len(mels) - 1 for number in range(len(mels))]
    if isinstance(stream, GrowingMel):
        starts = [0, *(mel.shape[2] for mel in mels[:-1])]
        new = [mel[:, :, start:] for mel, start in zip(mels, starts, strict=True)]
        voiced = stream.voiced(zip(new, finals, strict=True), None)
        return np.concatenate([chunk.audio for chunk in voiced], 1)
    parts, tail = [], None
    for mel, final in zip(mels, finals, strict=True):
        chunk, tail = cast(GrowingChunks, stream).voice(mel, tail, None, final=final)
        parts.append(chunk.audio)
    return np.concatenate(parts, 1)


def _sounds_like(v: Vectors, subject: BundleUnderTest, name: str, audio: np.ndarray) -> None:
    """Audio of a mel of our own, against audio of the original's mel."""
    if name in v:
        rate = subject.loaded.bundle.manifest.sample_rate
        distortion = mel_cepstral_distortion(audio[0], v.arrays[name][0], rate)
        v.judge(name, distortion, DISTORTION_DB)


def _interface(v: Vectors, subject: BundleUnderTest, sampler: Sampler) -> None:
    """Features of a prompt, then zero-shot, cross-lingual and instructed speech."""
    manifest = subject.loaded.bundle.manifest
    samples = v["api_prompt_wav"].reshape(-1)
    recording = Recording("api_prompt_wav", samples.astype(np.float32), manifest.sample_rate)
    text = subject.text_ids(v.ids("api_text"))
    prompt_text = subject.text_ids(v.ids("api_prompt_text"))
    prompt, speaker = (
        subject.enroller.prompt(recording, prompt_text),
        subject.enroller.speaker(recording),
    )
    counts = {"text": len(text), "prompt_text": len(prompt_text)}
    for use in ("llm", "flow"):
        v.compare(f"api_{use}_prompt_speech_token", prompt.tokens[None], 0.0)
        v.compare(f"api_{use}_embedding", speaker[None])
        counts[f"{use}_prompt_speech_token"] = len(prompt.tokens)
    v.compare("api_prompt_speech_feat", prompt.mel[None])
    counts["prompt_speech_feat"] = len(prompt.mel)
    for name, count in counts.items():
        v.compare(f"api_{name}_len", np.array([count]), 0.0)

    condition = Condition(speaker, prompt.tokens.tolist(), prompt.mel)
    told = None
    if "api_in2_tokens" in v:
        told = Context(subject.text_ids(v.ids("api_in2_prompt_text")), (), speaker)
    for run, given in (
        ("api_speech", Context(prompt_text, prompt.tokens.tolist(), speaker)),
        ("api_xl", Context(speaker=speaker)),
        ("api_in2", told),
    ):
        if given and f"{run}_tokens" in v:
            v.unused(f"{run}_keys", "names of the model's inputs in this mode")
            context = subject.loaded.frontend.context(given, text)
            tokens = _decoded(v, subject, f"{run}_tokens", text, context, sampler)
            wav = "api_wav" if run == "api_speech" else f"{run}_wav"
            mel = subject.loaded.flow.mel(tokens, condition)
            vocoder = subject.loaded.vocoder
            sound = vocoder.synthesize(mel, vocoder.noise(mel.shape[2], None))
            _sounds_like(v, subject, wav, sound.audio)


def _decoded(
    v: Vectors,
    subject: BundleUnderTest,
    name: str,
    text: list[int],
    context: Context,
    sampler: Sampler,
) -> list[int]:
    """The speech tokens of a text that are made to sound; all of them are compared."""
    decoder = subject.loaded.decoder
    found = decoder.generate(text, sampler, context, _RATIO * len(text))
    tokens, _ = decoder.collect(found)
    v.compare(name, np.array(tokens), 0.0)
    return list(filter(decoder.keeper(), tokens))
