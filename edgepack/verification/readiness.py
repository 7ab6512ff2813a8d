"""Whether a bundle has what it needs to speak besides its networks: text front end and voices."""

from edgepack import voices
from edgepack.bundle import Bundle
from edgepack.runtime.loading import open_frontend


def require_ready(bundle: Bundle) -> None:
    """Open the tokenizer, the reader of every language, and every voice.

    Raises what a device would when it speaks: IntegrityError for a file that is not what it should
    be, UnsupportedError for a reader whose library is missing.
    """
    for reader in open_frontend(bundle).normalize.readers.values():
        reader.open()
    for name in bundle.manifest.voices:
        voices.read(bundle, name)
