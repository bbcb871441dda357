"""Where downloads and the digits model are kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache folder for this package; the variable SECATEURS_CACHE overrides it."""
    override = os.environ.get("SECATEURS_CACHE")
    if override:
        return Path(override).expanduser()
    import platformdirs  # on use: nothing else needs it

    return Path(platformdirs.user_cache_dir("secateurs"))
