"""Where a model behind an OpenAI-compatible server is, as a recipe or a command line says it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from medjudge.errors import ConfigError

SCHEME = "openai:"


_SPEC = re.compile(r"openai:(?P<model>.+?)@(?P<url>https?://.+)")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model's name and where it is asked."""

    model: str
    url: str

    @property
    def host(self) -> str:
        """Host and port, for people."""
        return urlsplit(self.url).netloc

    @property
    def is_loopback(self) -> bool:
        """Whether the text of a case stays on this machine."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    @property
    def is_openai(self) -> bool:
        """Whether it is OpenAI's own service, or Azure's of it."""
        return (urlsplit(self.url).hostname or "").endswith(("openai.com", "openai.azure.com"))


def is_endpoint(where: str) -> bool:
    """Whether a model is named as an endpoint."""
    return where.startswith(SCHEME)


def parse_endpoint(where: str) -> Endpoint:
    """The endpoint that `openai:MODEL@URL` names. Raises ConfigError.

    The URL has no default: where the text of cases is sent is said each time.
    """
    match = _SPEC.fullmatch(where)
    parts = urlsplit(match["url"]) if match else None
    if match is None or parts is None or not parts.hostname:
        raise ConfigError(
            f"{where!r} names no endpoint, expected openai:MODEL@URL. Write one such as "
            "openai:gpt-4.1-mini@https://api.openai.com/v1 or openai:qwen3:0.6b@http://localhost:11434/v1."
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            f"the URL of endpoint {match['model']!r} holds a user, a query or a fragment, expected none: they would be "
            "written into results. Give the plain URL; keys go into an environment variable (`api_key_env`)."
        )
    return Endpoint(match["model"], match["url"].rstrip("/"))
