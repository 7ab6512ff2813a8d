"""The voices of a loaded bundle, kept in memory while other processes may change the files."""

from collections.abc import Mapping

from edgepack.bundle import voices
from edgepack.bundle.bundle import Bundle, open_bundle
from edgepack.bundle.voices import Voice
from edgepack.errors import IntegrityError, UsageError
from edgepack.runtime.fit import recorded, require_voice, widths

_TRIES = 3


class OpenedVoices:
    """The voices of a bundle as they were when it was opened, and those added to it since.

    A voice that is replaced or removed on the disk stays as it was until `reload`.
    """

    def __init__(self, bundle: Bundle, known: Mapping[str, Voice]) -> None:
        """`known` are the voices that the bundle's manifest names."""
        self._bundle = bundle
        self._known = dict(known)
        self._default = voices.default(bundle.manifest)

    def read(self, name: str | None) -> tuple[str, Voice]:
        """The voice called `name`, or the default, with its name; raises UsageError for others."""
        wanted = name or self._default
        if wanted not in self._known:  # it may be there by now
            wanted, added = self._added(name)
            self._known.setdefault(wanted, added)
        return wanted, self._known[wanted]

    def reload(self) -> None:
        """Read all voices and the default from the disk again.

        Raises UsageError if the bundle there has other networks by now.
        """
        for left in reversed(range(_TRIES)):
            latest = self._latest()
            try:
                known = dict(self._read(latest, name) for name in latest.manifest.voices)
            except IntegrityError:  # one was replaced after the manifest was read
                if not left:
                    raise
                continue
            self._known, self._default = known, voices.default(latest.manifest)
            return

    def forget(self, name: str) -> None:
        """Read a voice from the disk again when it is asked for next, as it may have gone there."""
        self._known.pop(name, None)

    def _added(self, name: str | None) -> tuple[str, Voice]:
        for _ in range(_TRIES - 1):
            try:
                return self._read(self._latest(), name)
            except IntegrityError:  # it was replaced after the manifest was read
                continue
        return self._read(self._latest(), name)

    def _latest(self) -> Bundle:
        latest = open_bundle(self._bundle.folder)
        if latest.manifest.stages != self._bundle.manifest.stages:
            raise UsageError(f"{latest.folder}: was built again since it was loaded; load it again")
        return latest

    def _read(self, latest: Bundle, name: str | None) -> tuple[str, Voice]:
        """Read a voice and check that it fits the loaded networks."""
        found, voice = voices.read(latest, name)
        fitting = widths(latest, recorded(latest))
        require_voice(latest, voice, fitting, f"voice {found!r}")
        return found, voice
