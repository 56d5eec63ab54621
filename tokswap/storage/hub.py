"""Upload of a finished result to the hub."""

from __future__ import annotations

from pathlib import Path

from tokswap.errors import OutputError

_LOGIN_HINT = "log in with `hf auth login`, and give the token the right to write"


def push_folder(folder: str | Path, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
    """Upload a finished result to a model repository of the hub.

    The repository is created where it does not exist. In an existing one, files of the same name are replaced and
    others stay.

    Args:
        folder: The result, as a command of tokswap has written it.
        repo_id: OWNER/NAME, or NAME for a repository of the user.
        private: Whether to create a private repository. An existing one stays as it is.
        token: Access token, the saved one by default.

    Returns:
        The URL of the repository.

    Raises:
        OutputError: push-failed, login-refused.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    folder = Path(folder)
    if not folder.is_dir():
        raise OutputError("push-failed", "there is no such folder to upload", folder=folder)
    api = HfApi(token=token)
    try:
        # None leaves the visibility to the owner, whose default may be private.
        repository = api.create_repo(repo_id, private=private or None, exist_ok=True)
        message = "Upload a result of tokswap"
        api.upload_folder(repo_id=repository.repo_id, folder_path=folder, commit_message=message)
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise _push_error(error, folder, repo_id) from error
    return str(repository)


def _push_error(error: Exception, folder: Path, repo_id: str) -> OutputError:
    """Return what to raise for an error of the hub's library."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    answer = error if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, LocalTokenNotFoundError) or (answer and answer.response.status_code in (401, 403)):
        message = f"the hub does not let you write to `{repo_id}`"
        return OutputError("login-refused", message, _LOGIN_HINT, folder=folder)
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
    return OutputError("push-failed", " ".join(message.split()), hint, folder=folder, repository=repo_id)
