"""Whether the parts of a bundle other than its networks work: text front end and voices."""

from edgepack.bundle import voices
from edgepack.bundle.bundle import Bundle
from edgepack.runtime.loading import open_frontend


def require_ready(bundle: Bundle) -> None:
    """Open the tokenizer, the reader of every language, and every voice.

    Raises what speaking would raise: IntegrityError for a damaged file, UnsupportedError for a
    reader whose library is missing.
    """
    for reader in open_frontend(bundle).normalize.readers.values():
        reader.open()
    for name in bundle.manifest.voices:
        voices.read(bundle, name)
