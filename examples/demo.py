"""Build the embedded demo voice and speak with each runtime of the bundle.

Every sentence is spoken by `edgepack run` in a process of its own, so that peak RSS is of that
run alone. Usage: python examples/demo.py [FOLDER]
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TARGET = "intel-cpu"
SENTENCES = {"zh": "你好,今天天气很好。", "en": "Hello, the weather is fine today."}
PARTS = {
    "LM": ("text_embedding", "speech_embedding", "speech_lm"),
    "flow": ("flow_encoder", "flow_time", "flow_estimator"),
    "vocoder": ("hift_source", "hift"),
}


def edgepack(*arguments: str) -> Any:
    """The JSON document of one edgepack command; its progress goes to the terminal."""
    command = [sys.executable, "-m", "edgepack", *arguments, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def speak(bundle: str, runtime: str, text: str, wav: Path) -> list[str]:
    """One row of the table: audio length, speed, latency, time by stage, memory."""
    result = edgepack("run", bundle, text, "--format", runtime, "--output", str(wav))
    parts = [sum(result["stages"][stage] for stage in stages) for stages in PARTS.values()]
    return [
        f"{result['audio_seconds']:.2f} s",
        f"{result['rtf']:.3f}",
        f"{1000 * result['first_audio_seconds']:.0f} ms",
        *(f"{1000 * seconds:.0f} ms" for seconds in parts),
        megabytes(result["peak_rss_bytes"]),
    ]


def megabytes(count: int) -> str:
    return f"{count / 1e6:.3g} MB"


def show(title: str, rows: Sequence[Sequence[str]]) -> None:
    """A table whose first row has the titles; columns after the first are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(title)
    for first, *others in rows:
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))


def main() -> None:
    """Build, speak, print the table."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output")
    (built,) = edgepack("build", "demo", "--target", TARGET, "--output", str(folder))["bundles"]
    runtimes = next(iter(built["stages"].values()))["runtimes"]
    rows = [["", "audio", "RTF", "first audio", *PARTS, "peak RSS"]]
    for runtime in runtimes:
        for language, text in SENTENCES.items():
            wav = folder / f"{runtime}-{language}.wav"
            rows.append([f"{runtime} {language}", *speak(built["path"], runtime, text, wav)])
    show(f"the demo voice for {TARGET}", rows)
    print(f"bundle: {built['path']}, {megabytes(built['bytes'])}")
    command = Path(sys.executable).with_name("edgepack")
    shown = command.relative_to(Path.cwd()) if command.is_relative_to(Path.cwd()) else command
    print(f'try:    {shown} run {built["path"]} "{SENTENCES["en"]}" -o hello.wav')
    print(f"sound:  {folder}/{{{','.join(runtimes)}}}-{{{','.join(SENTENCES)}}}.wav")


if __name__ == "__main__":
    main()
