"""DVC's Python API, where no command of its tells enough: the folder of its cache."""

from __future__ import annotations

from pathlib import Path

from doseledger.core.errors import BadInput


def cache_folder(root: Path) -> Path | None:
    """Return the folder of DVC's cache that holds objects by MD5, as the configuration says; None without a project.

    Raises
    ------
    BadInput
        If the configuration can't be read.
    """
    from dvc.config import ConfigError
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            return Path(repo.cache.local.path)
    except NotDvcRepoError:
        return None
    except ConfigError as error:
        raise BadInput(f"{root}: DVC can't read its configuration ({error}); mend the file that it names") from error
