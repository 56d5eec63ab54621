"""Upload of a finished result to the hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tokswap.errors import OutputError

_LOGIN_HINT = "log in with `hf auth login`, and give the token the right to write"


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    instead: Mapping[str, bytes] | None = None,
) -> str:
    """Upload a finished result to a model repository of the hub.

    The repository is created where it does not exist. In an existing one, files of the same name are replaced and
    others stay.

    Args:
        folder: The result, as a command of tokswap has written it.
        repo_id: OWNER/NAME, or NAME for a repository of the user.
        private: Whether to create a private repository. An existing one stays as it is.
        token: Access token, the saved one by default.
        instead: Name of a file -> the content that is uploaded instead of its own.

    Returns:
        The URL of the repository.

    Raises:
        OutputError: push-failed, login-refused.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import DEFAULT_IGNORE_PATTERNS, filter_repo_objects

    folder = Path(folder)
    if not folder.is_dir():
        raise OutputError("push-failed", "there is no such folder to upload", folder=folder)
    api = HfApi(token=token)
    try:
        # None leaves the visibility to the owner, whose default may be private.
        repository = api.create_repo(repo_id, private=private or None, exist_ok=True)
        message = "Upload a result of tokswap"
        names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        kept = filter_repo_objects(names, ignore_patterns=DEFAULT_IGNORE_PATTERNS)  # as `upload_folder` does
        files: dict[str, str | bytes] = {name: str(folder / name) for name in kept}
        files |= instead or {}
        adds = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=file) for name, file in files.items()]
        api.create_commit(repository.repo_id, adds, commit_message=message)
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise _push_error(error, folder, repo_id) from error
    return str(repository)


def check_push(repo_id: str) -> None:
    """Check before a run what an upload of its result needs, without a network.

    Raises:
        OutputError: push-failed, login-refused.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        if constants.HF_HUB_OFFLINE:
            raise OfflineModeIsEnabled
    except (HFValidationError, OfflineModeIsEnabled) as error:
        raise _push_error(error, None, repo_id) from error
    if get_token() is None:
        raise OutputError("login-refused", f"`{repo_id}` is for users who are logged in, and you are not", _LOGIN_HINT)


def _push_error(error: Exception, folder: Path | None, repo_id: str) -> OutputError:
    """Return what to raise for an error of the hub's library."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    answer = error if isinstance(error, HfHubHTTPError) else None
    where = {"folder": folder} if folder is not None else {}
    if isinstance(error, LocalTokenNotFoundError) or (answer and answer.response.status_code in (401, 403)):
        message = f"the hub does not let you write to `{repo_id}`"
        return OutputError("login-refused", message, _LOGIN_HINT, **where)
    if isinstance(error, HFValidationError):
        message, hint = f"`{repo_id}` cannot be the name of a repository", "write OWNER/NAME"
    elif isinstance(error, OfflineModeIsEnabled):
        message, hint = "HF_HUB_OFFLINE forbids the upload", "unset HF_HUB_OFFLINE"
    elif answer:
        message, hint = (
            f"the hub refused the upload: {answer.server_message or error}",
            "the result on disk is complete",
        )
    else:
        message, hint = f"the upload did not finish: {error}", "push again: files that arrived are not sent twice"
    return OutputError("push-failed", " ".join(message.split()), hint, **where, repository=repo_id)
