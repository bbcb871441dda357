"""Where results go if no folder is named."""

import hashlib
import re
from pathlib import Path


def default_folder(*parts: str, settings: str) -> Path:
    """A folder whose name depends on the options, so that the same command finds its results.

    Args:
        parts: what its name begins with; empty ones are left out.
        settings: a text that differs where the results would.
    """
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    name = "_".join(re.sub(r"[^\w.-]+", "-", part).strip("-.") for part in parts if part)
    return Path("secateurs-results") / f"{name}_{digest}"
