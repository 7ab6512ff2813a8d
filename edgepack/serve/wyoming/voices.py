"""What clients of Wyoming are told about voices, and which one they ask for.

The voices of one bundle have their own names; those of several are called BUNDLE/VOICE.
"""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

from wyoming.info import Attribution, Info, TtsProgram, TtsVoice
from wyoming.tts import SynthesizeVoice

import edgepack
from edgepack.bundle.manifest import Manifest
from edgepack.serve.models import ServedModel, named
from edgepack.serve.refusal import RefusalError

Models = Mapping[str, ServedModel]


async def info(models: Models) -> Info:
    """One program with the voices of all bundles as they are now, default voices first."""
    voices = []
    for model in models.values():
        for name in await asyncio.to_thread(model.voices):
            voices.append(_voice(model, name, alone=len(models) == 1))
    program = TtsProgram(
        name="edgepack",
        attribution=Attribution(name="edgepack", url=""),
        installed=True,
        description="CosyVoice on this machine",
        version=edgepack.__version__,
        voices=voices,
        supports_synthesize_streaming=True,
    )
    return Info(tts=[program])


def _voice(model: ServedModel, name: str, *, alone: bool) -> TtsVoice:
    manifest = model.synthesizer.loaded.bundle.manifest
    return TtsVoice(
        name=name if alone else f"{model.name}/{name}",
        attribution=_attribution(manifest),
        installed=True,
        description=f"{name} ({model.name})",
        version=None,
        languages=list(manifest.languages),
    )


def _attribution(manifest: Manifest) -> Attribution:
    """Whose checkpoint it is, by the hub that it came from if it came from one."""
    if manifest.origin:
        return Attribution(name=manifest.origin.repository, url="")
    return Attribution(name=manifest.name, url="")


def chosen(models: Models, voice: SynthesizeVoice | None) -> tuple[str, str | None]:
    """The bundle and the voice, None for its default, that a client asks for.

    A language is answered with the first bundle that speaks it. Raises RefusalError if there is
    none.
    """
    first = next(iter(models))
    if voice is None or (voice.name is None and voice.language is None):
        return first, None
    if voice.name is None:
        return _speaking(models, str(voice.language)), None
    if len(models) == 1:
        return first, voice.name
    bundle, _, name = voice.name.partition("/")
    return named(models, bundle).name, name or None


def _speaking(models: Models, language: str) -> str:
    code = language.replace("_", "-").partition("-")[0].lower()
    for model in models.values():
        if code in model.synthesizer.loaded.bundle.manifest.languages:
            return model.name
    raise RefusalError(
        HTTPStatus.BAD_REQUEST,
        f"no bundle here speaks {language!r}",
        param="language",
        code="unsupported_language",
    )
