"""Where downloads and the digits model are kept."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """The user's cache folder for this package; the variable SECATEURS_CACHE overrides it."""
    override = os.environ.get("SECATEURS_CACHE")
    return (
        Path(override).expanduser() if override else Path(platformdirs.user_cache_dir("secateurs"))
    )
