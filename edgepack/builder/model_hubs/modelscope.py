"""ModelScope, with the library that its SDK downloads with, modelscope_hub."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.builder.model_hub import Listing, Told, UnreachableError
from edgepack.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from modelscope_hub import HubApi, HubConfig, ProgressCallback

_BRANCH = "master"  # where none is asked for


class _ModelScope:
    def listing(self, repository: str, revision: str | None) -> Listing:
        with _translated(repository, revision):
            files = _api(repository).list_repo_files(repository, "model", revision=revision)
        files = [file for file in files if not file.is_dir]
        return Listing(
            revision or _BRANCH,
            {file.path: file.size for file in files},
            {file.path: file.sha256 for file in files if file.sha256},
        )

    def fetch(self, repository: str, listing: Listing, name: str, told: Told) -> Path:
        file = {
            "Path": name,
            "Size": listing.sizes[name],
            "Sha256": listing.hashes.get(name),
        }
        with _translated(repository, listing.revision):
            folder = _api(repository).download_repo(
                repository,
                "model",
                revision=listing.revision,
                file_list=[file],
                progress_callbacks=[_callback(told)],
            )
        return folder / name

    def cached(
        self, repository: str, revision: str | None, names: Sequence[str]
    ) -> tuple[Path, str] | None:
        from modelscope_hub import CacheNotFound, HubApi

        try:
            folder = HubApi(_config()).download_repo(
                repository, "model", revision=revision, local_files_only=True
            )
        except CacheNotFound:
            return None
        if not any((folder / name).is_file() for name in names):
            return None
        return folder, revision or _BRANCH


def _config() -> "HubConfig":
    """The user's configuration, without the machine id that the library would otherwise make.

    It would store that id in ~/.modelscope and send it with every request.
    """
    from modelscope_hub import HubConfig

    class Config(HubConfig):
        def get_session_id(self) -> str:
            return uuid.uuid4().hex

    return Config()


def _api(repository: str) -> "HubApi":
    """The API of the site that has the repository; it has two, unless one is configured."""
    from modelscope_hub import HubApi

    endpoint = HubApi(_config()).resolve_endpoint_for_read(repository)
    return HubApi(_config(), endpoint=endpoint)


@contextmanager
def _translated(repository: str, revision: str | None) -> Iterator[None]:
    """Turn errors of the library into those of edgepack."""
    import modelscope_hub as library
    import requests

    try:
        try:
            yield
        except library.FileDownloadError as error:
            raise next(iter(error.failed_files.values()), error) from None
    except library.NotExistError as error:
        at = f" or no revision {revision!r} of it" if revision else ""
        raise UsageError(
            f"{repository}: no such repository at ModelScope{at} ({error.message}); if it is "
            "private, log in (modelscope login, or MODELSCOPE_API_TOKEN)"
        ) from None
    except (library.AuthenticationError, library.PermissionDeniedError) as error:
        raise UsageError(
            f"{repository}: may not be read ({error.message}); ask for it on its page at "
            "ModelScope, and log in (modelscope login, or MODELSCOPE_API_TOKEN)"
        ) from None
    except library.FileIntegrityError as error:
        raise IntegrityError(f"{repository}: {error.message}; try again") from None
    except library.APIError as error:
        raise UnreachableError(f"ModelScope answered {error.status_code}") from None
    except (library.HubError, requests.RequestException) as error:
        cause = type(error.__cause__ or error).__name__
        raise UnreachableError(f"ModelScope does not answer ({cause})") from None


def _callback(told: Told) -> "type[ProgressCallback]":
    from modelscope_hub import ProgressCallback

    class Callback(ProgressCallback):
        def update(self, size: int) -> None:
            told(size)

    return Callback


HUB = _ModelScope()
