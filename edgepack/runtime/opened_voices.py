"""The voices of a loaded bundle, in memory: others may change those on the disk meanwhile."""

from collections.abc import Mapping

from edgepack import voices
from edgepack.bundle import Bundle, open_bundle
from edgepack.errors import IntegrityError, UsageError
from edgepack.runtime.fit import recorded, require_voice, widths
from edgepack.voices import Voice

_TRIES = 3


class OpenedVoices:
    """The voices of a bundle as they were when it was opened, and those added to it since.

    One that is replaced or removed on the disk speaks on as it was, until `reload`.
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
        """Take all voices, and the default, as they are on the disk now.

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
        """A voice that the networks which are loaded can be given."""
        found, voice = voices.read(latest, name)
        fitting = widths(latest, recorded(latest))
        require_voice(latest, voice, fitting, f"voice {found!r}")
        return found, voice
