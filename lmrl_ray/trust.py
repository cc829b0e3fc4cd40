"""What the folder of a run may not decide, since it may be a stranger's: where keys and files go."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lmrl_ray.config import ConfigError


def check_endpoint(env: Mapping[str, Any], folder: Path, asked: str | None = None) -> None:
    """ConfigError when the simulator of a folder's configuration would be asked, with the user's key, at an
    address of another machine that the user has not named, as `asked` or in OPENAI_BASE_URL."""
    url = env.get("base_url")
    if url and not is_here(url) and url not in (asked, os.environ.get("OPENAI_BASE_URL")):
        raise ConfigError(
            f"{folder}: its simulator is asked at {url}, which would get your OPENAI_API_KEY; if you trust "
            f"that address, name it, too: OPENAI_BASE_URL={url}"
        )


def is_here(url: str) -> bool:
    """Whether an address is of this machine alone."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_below(folder: Path, home: Path) -> bool:
    """Whether a folder, with all that is in it, lies in `home`: a link may lead anywhere."""
    inside = folder.resolve().is_relative_to(home.resolve())
    return inside and not any(path.is_symlink() for path in (folder, *folder.rglob("*")))
