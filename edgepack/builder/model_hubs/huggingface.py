"""Hugging Face, and mirrors of it (HF_ENDPOINT), with the library huggingface_hub."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgepack import __version__
from edgepack.builder.model_hub import Listing, Told, UnreachableError
from edgepack.errors import UsageError

_LIBRARY = "edgepack"  # as the hub sees it


class _HuggingFace:
    def listing(self, repository: str, revision: str | None) -> Listing:
        from huggingface_hub import HfApi

        api = HfApi(library_name=_LIBRARY, library_version=__version__)
        with _translated(repository, revision):
            # It also notes in the cache what a branch or tag is, for when there is no network.
            resolved = api.resolve_revision(repository, revision=revision).resolved
            info = api.model_info(repository, revision=resolved, files_metadata=True)
        return Listing(resolved, {file.rfilename: file.size or 0 for file in info.siblings or ()})

    def fetch(self, repository: str, listing: Listing, name: str, told: Told) -> Path:
        from huggingface_hub import hf_hub_download

        with _translated(repository, listing.revision):
            return Path(
                hf_hub_download(
                    repository,
                    name,
                    revision=listing.revision,
                    library_name=_LIBRARY,
                    library_version=__version__,
                    tqdm_class=_bar(told),
                )
            )

    def cached(
        self, repository: str, revision: str | None, names: Sequence[str]
    ) -> tuple[Path, str] | None:
        from huggingface_hub import try_to_load_from_cache

        for name in names:
            path = try_to_load_from_cache(repository, name, revision=revision)
            if isinstance(path, str):
                folder = Path(path).parent
                return folder, folder.name
        return None


@contextmanager
def _translated(repository: str, revision: str | None) -> Iterator[None]:
    """Turn errors of the library into those of edgepack."""
    import httpx2  # what the library asks with
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise UsageError(
            f"{repository}: who wants it has to ask for it on its page at Hugging Face, and to log "
            "in (hf auth login, or HF_TOKEN)"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UsageError(
            f"{repository}: no such folder, and no such repository at Hugging Face; if it is "
            "private, log in (hf auth login, or HF_TOKEN)"
        ) from None
    except errors.RevisionNotFoundError:
        raise UsageError(f"{repository}: has no revision {revision!r}") from None
    except errors.HFValidationError as error:
        raise UsageError(f"{repository}: not the name of a repository ({error})") from None
    except errors.OfflineModeIsEnabled:
        raise UnreachableError("HF_HUB_OFFLINE is set") from None
    except (errors.RevisionResolutionError, errors.LocalEntryNotFoundError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, errors.OfflineModeIsEnabled):
            raise UnreachableError("HF_HUB_OFFLINE is set") from None
        if isinstance(cause, errors.HfHubHTTPError):
            raise UnreachableError(f"Hugging Face answered {cause.response.status_code}") from None
        raise UnreachableError(_unanswered(cause)) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise UsageError(
                f"{repository}: may not be read ({status}); log in (hf auth login, or HF_TOKEN)"
            ) from None
        raise UnreachableError(f"Hugging Face answered {status}") from None
    except httpx2.TransportError as error:
        raise UnreachableError(_unanswered(error)) from None
    except RuntimeError as error:  # of hf_xet, whatever it is
        raise UnreachableError(str(error)) from None
    except OSError as error:
        if error.errno is not None:  # of this machine: a full disk
            raise
        raise UnreachableError(str(error)) from None


def _unanswered(error: BaseException) -> str:
    return f"Hugging Face does not answer ({type(error).__name__}: {error})"


def _bar(told: Told) -> Any:
    """A class with the interface of tqdm's progress bar, which reports the bytes written."""

    class Bar:
        total: int | None = None

        def __init__(self, *args: object, **options: object) -> None:
            pass

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def update(self, count: int | float | None = 1) -> None:
            told(int(count or 0))

        def ignored(self, *args: object, **options: object) -> None:
            pass

        update_transfer = set_postfix_str = set_transfer_postfix_str = refresh = close = ignored

    return Bar


HUB = _HuggingFace()
