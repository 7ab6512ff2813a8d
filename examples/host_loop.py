"""Speech from a phone bundle with numpy and one engine: docs/host-loop.md, line by line.

    python examples/host_loop.py BUNDLE "你好，世界。" -o out.wav [--runtime tflite] [--stream]

Imports nothing of edgepack: it is what an app in Kotlin or Swift does. With the same seed it gives
the same samples as `edgepack run`. Text is spoken as it is: spell numbers out.
"""

import argparse
import json
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from host_engines import Arrays, LiteRt, Ort
from host_files import Tokenizer, safetensors, start_noise

# The kinds of loops that these are; docs/host-loop.md has them all.
KINDS = {
    "text": "byte_bpe", "language_model": "text_then_speech", "flow": "causal_chunks",
    "vocoder": "hift", "stream": "growing_chunks",
}  # fmt: skip


def softmax(values: np.ndarray) -> np.ndarray:
    e = np.exp(values - values.max())
    return e / e.sum(dtype=np.float32)


class Host:
    """A bundle's networks and the loops around them, for one utterance."""

    def __init__(self, bundle: Path, runtime: str, seed: int, voice: str = "") -> None:
        self.loop = json.loads((bundle / "host_loop.json").read_text("utf-8"))
        self.runtime = runtime
        if unlike := [part for part, kind in KINDS.items() if self.loop[part]["kind"] != kind]:
            raise SystemExit(f"{bundle}: another kind of {unlike[0]} than these loops are for")
        kind = Ort if self.loop["caches"][runtime] == "grown" else LiteRt
        networks = self.loop["networks"].items()
        self.net = {k: kind(bundle / n["files"][runtime], n["caches"]) for k, n in networks}
        self.tokenize = Tokenizer(bundle / self.loop["text"]["tokenizer"])
        voices = self.loop["voices"]
        arrays = safetensors(bundle / voices[voice or min(voices)])
        self.speaker = arrays["speaker"].reshape(1, -1)
        self.prompt_text = arrays.get("prompt_text", np.zeros(0, np.int64)).tolist()
        self.prompt = arrays.get("prompt_tokens", np.zeros(0, np.int64)).tolist()
        self.flow, self.vocoder = self.loop["flow"], self.loop["vocoder"]
        self.prompt_mel = arrays.get("prompt_mel", np.zeros((0, self.flow["mels"]), np.float32))
        shape = (1, self.flow["mels"], self.flow["noise_frames"])
        self.noise = start_noise(self.flow["noise_seed"], shape)
        self.uniform = np.random.default_rng([seed, 0, 0]).random
        self.normal = np.random.default_rng([seed, 0, 1]).standard_normal

    def rows(self, table: str, ids: list[int]) -> np.ndarray:
        return self.net[table].run(ids=np.array([ids], np.int64))["embeddings"]

    def tokens(self, text: list[int]) -> Iterator[int]:
        """Speech tokens of a text's ids, one at a time."""
        lm, decoder = self.loop["language_model"], self.net["speech_lm"]
        start = self.rows("speech_embedding", [lm["start"]])
        middle = self.rows("text_embedding", [*self.prompt_text, *text])
        end = self.rows("speech_embedding", [lm["task"], *self.prompt])
        block = np.concatenate([start, middle, end], 1)
        decoder.reset()
        history: list[int] = []
        for step in range(int(len(text) * lm["max_ratio"])):
            logits = decoder.run(embeddings=block)["logits"][0]
            shifted = logits - logits.max()
            scores = shifted - np.log(np.exp(shifted).sum(dtype=np.float32))
            if step < int(len(text) * lm["min_ratio"]):
                scores[lm["masked_before_min"]] = -np.inf
            token = self.sample(scores, history, **lm["sampling"])
            if token >= lm["speech_tokens"]:
                return
            yield token
            history.append(token)
            block = self.rows("speech_embedding", [token])

    def sample(self, scores: np.ndarray, history: list[int], **how: float) -> int:
        """A draw from the nucleus; one that repeats too often is replaced by any other id."""
        chances = softmax(scores)
        ranked = np.argsort(-chances, kind="stable")[: int(how["top_k"])]
        reached = np.cumsum(chances[ranked], dtype=np.float32)[:-1]
        ranked = ranked[: 1 + int((reached < np.float32(how["top_p"])).sum())]
        chosen = int(ranked[self.draw(chances[ranked])])
        if history[-int(how["window"]) :].count(chosen) < how["window"] * how["repetition"]:
            return chosen
        others = scores.copy()
        others[chosen] = -np.inf
        return self.draw(softmax(others))

    def draw(self, weights: np.ndarray) -> int:
        share = np.cumsum(weights, dtype=np.float64)
        index = int(np.searchsorted(share, self.uniform() * share[-1], side="right"))
        return min(index, len(weights) - 1)

    def mel(self, tokens: list[int], *, final: bool = True, chunked: bool = False) -> np.ndarray:
        """Mel [1, mels, frames] of the tokens, without the prompt's frames."""
        flow, sequence = self.flow, [*self.prompt, *tokens]
        encoded = self.net["flow_encoder"].run(
            tokens=np.array([sequence + [0] * (flow["look_ahead"] if final else 0)], np.int64),
            look_ahead=np.array([not final], np.float32),
            chunk=np.array([flow["chunk"] if chunked else len(sequence)], np.int64),
            speaker=self.speaker,
        )
        mu, known = encoded["mu"], len(self.prompt_mel)
        frames = mu.shape[2]
        given = {"mu": mu, "spk": encoded["spk"], "cond": np.zeros_like(mu)}
        given["cond"][0, :, :known] = self.prompt_mel.T
        chunk = np.array([flow["chunk"] * flow["ratio"] if chunked else frames], np.int64)
        return np.ascontiguousarray(self.solve(given, chunk, frames)[:, :, known:])

    def solve(self, given: Arrays, chunk: np.ndarray, frames: int) -> np.ndarray:
        """The ODE from the noise to the mel; velocities are kept, the latest first."""
        steps = self.flow["solvers"][self.runtime]
        times = np.array([step["time"] for step in steps], np.float32)
        shifts = self.net["flow_time"].run(t=times)["shift"]
        none = {name: np.zeros_like(value) for name, value in given.items()}
        both = {name: np.concatenate([value, none[name]]) for name, value in given.items()}
        pair = [both] if self.loop["rows"][self.runtime] == "any" else [given, none]
        x = start = np.ascontiguousarray(self.noise[:, :, :frames])
        own, free = list[np.ndarray](), list[np.ndarray]()
        for step, shift in zip(steps, shifts, strict=True):
            guided = step["guided"]
            weights = np.array([step["conditional"][0], *step["free"][:guided]], np.float32)
            found = []
            for at, rows in enumerate(pair if guided else [given]):
                own_weights = weights[at:][: len(rows["mu"])]
                now = {"x": x, "shift": shift[None], "step": own_weights, "chunk": chunk, **rows}
                found.append(self.net["flow_estimator"].run(**now))
            velocity = np.concatenate([each["velocity"] for each in found])
            moved = found[0]["next"] + (weights[1] * velocity[1:] if len(found) > 1 else 0)
            past = list(zip(step["conditional"][1:], own, strict=False))
            past += zip(step["free"][guided:], free, strict=False)
            past += [(step["keep"] - 1, x), (step["start"], start)]
            x = sum((np.float32(weight) * value for weight, value in past if weight), moved)
            own, free = [velocity[:1], *own], [velocity[1:], *free] if guided else free
        return x

    def sound(self, mel: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Audio [1, n] and excitation [1, 1, n] of a mel, which begins with `known` excitation."""
        shape = (1, mel.shape[2] * self.vocoder["frame"], self.vocoder["partials"])
        noise = self.normal(shape, np.float32)
        source = self.net["hift_source"].run(mel=mel, noise=noise)["source"]
        source = np.concatenate([known, source[:, :, known.shape[2] :]], 2)
        return self.net["hift"].run(mel=mel, source=source)["audio"], source

    def speak(self, text: list[int]) -> Iterator[np.ndarray]:
        """Audio [1, n] of one utterance, in one piece."""
        yield self.sound(self.mel(list(self.tokens(text))), np.zeros((1, 1, 0), np.float32))[0]

    def stream(self, text: list[int]) -> Iterator[np.ndarray]:
        """Audio [1, n] while tokens still arrive; neighbours share frames and are cross-faded."""
        how = self.loop["stream"]
        hop, done, known = how["first_hop"], 0, list[int]()
        overlap, samples = how["mel_overlap"], how["mel_overlap"] * self.vocoder["frame"]
        window = np.hamming(2 * samples)
        mel, source, audio = np.zeros((1, self.flow["mels"], 0)), np.zeros((1, 1, 0)), None
        arriving = self.tokens(text)
        while True:
            token = next(arriving, None)
            if token is not None:
                known.append(token)
                wanted = hop + (0 if done else -len(self.prompt) % hop)
                if len(known) - done < wanted + self.flow["look_ahead"]:
                    continue
            elif not known:
                return
            final = token is None
            new = self.mel(known, final=final, chunked=not final)[:, :, done * self.flow["ratio"] :]
            joined = np.concatenate([mel, new], 2).astype(np.float32)
            sound, excited = self.sound(joined, source.astype(np.float32))
            if audio is not None:
                sound[:, :samples] *= window[:samples]
                sound[:, :samples] += audio * window[samples:]
            if final:
                yield sound
                return
            yield sound[:, :-samples]
            mel, source = joined[:, :, -overlap:], excited[:, :, -samples:]
            audio = sound[:, -samples:]
            done, hop = done + wanted, min(how["max_hop"], hop * how["growth"])


def main() -> None:
    """Read the command line, speak, write a 16-bit wav."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("text")
    parser.add_argument("-o", "--output", default="out.wav")
    parser.add_argument("--runtime", default="ort", choices=["ort", "tflite"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stream", action="store_true")
    options = parser.parse_args()
    host = Host(options.bundle, options.runtime, options.seed)
    ids = host.tokenize(options.text)
    audio = np.concatenate(list((host.stream if options.stream else host.speak)(ids)), 1)[0]
    with wave.open(options.output, "wb") as file:
        file.setparams((1, 2, host.loop["sample_rate"], 0, "NONE", ""))
        file.writeframes((np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    main()
