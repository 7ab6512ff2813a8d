"""What `edgepack run` reports about the speech it made, as JSON or in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack import report

if TYPE_CHECKING:
    from edgepack.bundle.bundle import Bundle
    from edgepack.machine.cpu.affinity import ThreadMasks
    from edgepack.machine.cpu.plan import CpuPlan
    from edgepack.runtime.speech import Speech
    from edgepack.runtime.synthesizer import Settings, Synthesizer


def record(
    synthesizer: "Synthesizer",
    speech: "Speech",
    plan: "CpuPlan",
    observed: "ThreadMasks",
    energy: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """The JSON document; `extra` is put at its front."""
    from edgepack.machine.cpu import lists
    from edgepack.machine.memory import peak_rss_bytes
    from edgepack.runtime.engines.session import engine

    host = synthesizer.loaded.host
    manifest = synthesizer.loaded.bundle.manifest
    placement = host.placement
    warnings = [*speech.faults, *plan.notes, *(placement.warnings() if placement else ())]
    if manifest.quality and manifest.quality.failed:
        failed = "; ".join(manifest.quality.failed)
        warnings.append(f"this bundle failed its evaluation and was built all the same: {failed}")
    if speech.foreign:
        warnings.append(
            f"{100 * speech.foreign:.1f} % of the characters are not in the bundle's languages "
            f"({manifest.language}) and may be misread"
        )
    if speech.unread:
        more = f" and {len(speech.unread) - 1} more" if len(speech.unread) > 1 else ""
        warnings.append(
            f"no reading was found for {speech.unread[0]!r}{more}: spoken as written; "
            "write it out in words"
        )
    if observed.strays:
        warnings.append(
            f"threads may run on CPU {', '.join(observed.strays)}, outside of the plan's "
            f"{lists.show(plan.cpus)}"
        )
    return {
        **extra,
        "text": [u.decoded.text for u in speech.utterances],
        "voice": speech.voice,
        "mode": speech.mode,
        "runtime": host.runtime,
        "runtime_version": engine(host.runtime).version(),
        "providers": placement.record() if placement else None,
        "threads": host.threads,
        "cpus": list(observed.cpus or plan.cpus),
        "pinning": {
            "planned": list(plan.cpus),
            "pinned": plan.pinned,
            "observed": dict(observed.masks),
            "spinning": plan.spin,
        },
        "sample_rate": speech.sample_rate,
        "audio_seconds": speech.audio_seconds,
        "synthesis_seconds": speech.seconds,
        "rtf": speech.real_time_factor,
        "first_audio_seconds": speech.first_audio_seconds,
        "underruns": _underruns(speech),
        "stages": speech.stages,
        "speech_tokens": [t for u in speech.utterances for t in u.decoded.speech_tokens],
        "peak_rss_bytes": peak_rss_bytes(),
        "energy": dict(energy),
        "foreign_share": speech.foreign,
        "unread": list(speech.unread),
        "warnings": warnings,
    }


def _underruns(speech: "Speech") -> dict[str, Any] | None:
    """What a player hears that begins with the first chunk of a stream; None for other speech."""
    from edgepack.runtime.audio.underruns import underruns

    if not speech.arrivals:
        return None
    heard = underruns(speech.arrivals)
    return {"count": heard.count, "seconds": heard.seconds}


def versions(bundle: "Bundle", runtime: str) -> str:
    """Which bundle spoke, what it was built by, and the engines that ran it."""
    import edgepack
    from edgepack.runtime.engines.session import engine

    manifest = bundle.manifest
    engines = ", ".join(f"{name} {engine(name).version()}" for name in bundle.engines(runtime))
    return (
        f"{bundle.folder}: {manifest.name} for {manifest.target}, format {manifest.format}, built "
        f"by edgepack {manifest.edgepack}, {manifest.build[:12]}; this is edgepack "
        f"{edgepack.__version__} with {engines}"
    )


def together(synthesizer: "Synthesizer", speech: "Speech") -> str:
    """How many utterances were decoded in one call."""
    if speech.rows > 1:
        return f"up to {speech.rows} utterances were decoded together"
    most = synthesizer.loaded.batching.rows
    could = f"up to {most}" if most else "none"
    return f"utterances were decoded one by one; of this bundle {could} are decoded together"


def solver_record(synthesizer: "Synthesizer", settings: "Settings") -> dict[str, Any]:
    """The flow decoder's solver: name, steps, and evaluations of the estimator an utterance."""
    loaded = synthesizer.loaded
    solver = loaded.solver(settings.solver, settings.steps)
    return {
        "name": loaded.solver_name(solver),
        "steps": len(solver.steps),
        "evaluations": solver.evaluations,
    }


def show(found: Mapping[str, Any]) -> None:
    """Print the record in a few lines."""
    from edgepack.energy.measurement import sentence

    count = len(found["files"])
    where = f"{found['output'] or 'played'}{f', {count} files' if count > 1 else ''}"
    report.line(
        f"{where}: {found['audio_seconds']:.2f} s of audio in "
        f"{found['synthesis_seconds']:.2f} s, RTF {found['rtf']:.3f}, "
        f"first audio after {found['first_audio_seconds']:.2f} s"
    )
    if dry := found["underruns"]:
        gaps = f"{dry['count']} gap{'s' if dry['count'] > 1 else ''}, {dry['seconds']:.2f} s in all"
        later = f"none if it begins {dry['seconds']:.2f} s later"
        heard = f"{gaps}; {later}" if dry["count"] else "no gap"
        report.line(f"a player that begins with the first chunk: {heard}")
    stages = ", ".join(f"{name} {seconds:.2f}" for name, seconds in found["stages"].items())
    overlap = " (overlapping)" if found["stream"] else ""
    report.line(f"seconds by stage{overlap}: {stages}; loading {found['load_seconds']:.2f}")
    masks = ", ".join(
        f"{count} on CPU {mask}" for mask, count in found["pinning"]["observed"].items()
    )
    pinned = "pinned" if found["pinning"]["pinned"] else "not pinned"
    report.line(
        f"{found['runtime']} {found['runtime_version']}, {found['threads']} compute threads, "
        f"{pinned}; all threads: {masks or 'not known'}"
    )
    report.line(
        f"voice {found['voice']} ({found['mode']}), {found['solver']['name']} solver "
        f"({found['solver']['evaluations']} evaluations), "
        f"peak RSS {report.size(found['peak_rss_bytes'])}"
    )
    report.line(f"energy: {sentence(found['energy'])}")


def dump(folder: Path, speech: "Speech") -> None:
    """Write the values between the networks, one npz file for each utterance."""
    import numpy as np

    for number, utterance in enumerate(speech.utterances):
        np.savez(
            folder / f"utterance-{number:04d}.npz",
            allow_pickle=False,
            text=np.array(utterance.decoded.text),
            text_ids=np.array(utterance.decoded.text_ids, np.int64),
            speech_tokens=np.array(utterance.decoded.speech_tokens, np.int64),
            mel=utterance.mel,
            audio=utterance.audio,
        )
