"""`tts.npz`: whole utterances, streamed and not, and the modes of the original's interface."""

import re

import numpy as np

from edgepack.runtime.audio import Recording
from edgepack.runtime.flow import Condition, change_speed
from edgepack.runtime.sampling import greedy
from edgepack.runtime.stream import ChunkedSynthesis
from edgepack.verification.quality import mel_cepstral_distortion
from edgepack.verification.reference import DISTORTION_DB, UTTERANCE, Subject, Vectors

_SLOW_TOKENS, _SHORT_TOKENS = 30, 20
_AGAIN_HOP = 100  # a second stream of the original starts with the hop the first one ended with
_RATIO = 5  # speech tokens a text token, at most


def check(v: Vectors, subject: Subject) -> None:
    """Compare every array of the file."""
    if "tts_token" in v:
        _offline(v, subject)
        _streams(v, subject)
    if "api_prompt_wav" in v:
        _interface(v, subject)


def _condition(v: Vectors) -> Condition:
    v.unused("rand_ini", "initial phases of the harmonics, which have no effect")
    return Condition(v["tts_embedding"], v.ids("tts_prompt_token"), v["tts_prompt_feat"])


def _offline(v: Vectors, subject: Subject) -> None:
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


def _streams(v: Vectors, subject: Subject) -> None:
    stream = subject.loaded.stream
    tokens, condition = v.ids("tts_token"), _condition(v)
    runs = {
        "stream": (tokens, None),
        "stream_again": (tokens, _AGAIN_HOP),
        "short_stream": (tokens[:_SHORT_TOKENS], None),
    }
    for run, (given, hop) in runs.items():
        chunks = list(stream.run(given, condition, None, hop))
        v.compare(f"{run}_chunk_samples", np.array([c.audio.shape[1] for c in chunks]), 0.0)
        v.compare(f"{run}_hift_frames", np.array([c.mel.shape[2] for c in chunks]), 0.0)
        names = [f"{run}_hift_mel_{number}" for number in range(len(chunks))]
        for name, chunk in zip(names, chunks, strict=True):
            v.compare(name, chunk.mel)
        if all(name in v for name in names):
            v.compare(f"{run}_wav", _revoiced(stream, [v.arrays[n] for n in names]), UTTERANCE)
        else:
            _sounds_like(v, subject, f"{run}_wav", np.concatenate([c.audio for c in chunks], 1))


def _revoiced(stream: ChunkedSynthesis, mels: list[np.ndarray]) -> np.ndarray:
    """Audio [1, n] of the recorded mels of a stream's chunks."""
    parts, tail = [], None
    for number, mel in enumerate(mels):
        chunk, tail = stream.voice(mel, tail, None, final=number == len(mels) - 1)
        parts.append(chunk.audio)
    return np.concatenate(parts, 1)


def _sounds_like(v: Vectors, subject: Subject, name: str, audio: np.ndarray) -> None:
    """Audio of a mel of our own, against audio of the original's mel."""
    if name in v:
        rate = subject.loaded.bundle.manifest.sample_rate
        distortion = mel_cepstral_distortion(audio[0], v.arrays[name][0], rate)
        v.judge(name, distortion, DISTORTION_DB)


def _interface(v: Vectors, subject: Subject) -> None:
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
    _spoken(v, subject, "api_speech_tokens", "api_wav", text, prompt_text, prompt.tokens, condition)
    nothing = np.zeros(0, np.int64)
    if "api_xl_tokens" in v:
        v.unused("api_xl_keys", "names of the model's inputs in this mode")
        _spoken(v, subject, "api_xl_tokens", "api_xl_wav", text, [], nothing, condition)
    if "api_in2_tokens" in v:
        v.unused("api_in2_keys", "names of the model's inputs in this mode")
        instruction = subject.text_ids(v.ids("api_in2_prompt_text"))
        _spoken(v, subject, "api_in2_tokens", "api_in2_wav", text, instruction, nothing, condition)


def _spoken(
    v: Vectors,
    subject: Subject,
    tokens_name: str,
    wav_name: str,
    text: list[int],
    prompt_text: list[int],
    prompt: np.ndarray,
    condition: Condition,
) -> None:
    decoder, vocoder = subject.loaded.decoder, subject.loaded.vocoder
    longest = _RATIO * len(text)
    tokens, _ = decoder.collect(
        decoder.generate(text, greedy, prompt_text, prompt.tolist(), longest)
    )
    v.compare(tokens_name, np.array(tokens), 0.0)
    mel = subject.loaded.flow.mel(tokens, condition)
    sound = vocoder.synthesize(mel, vocoder.noise(mel.shape[2], None))
    _sounds_like(v, subject, wav_name, sound.audio)
