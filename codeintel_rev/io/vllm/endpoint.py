"""Where one model is asked, and as whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import httpx

from codeintel_rev.config.settings import EndpointSettings
from codeintel_rev.errors import SettingsError

EndpointName = Literal["embed", "chat", "score", "tokens"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One model of one server. `url` has neither a trailing slash nor `/v1`; `timeout_s` is for a whole call."""

    name: EndpointName
    url: str
    model: str
    key: str = field(repr=False)
    timeout_s: float

    @classmethod
    def of(cls, name: EndpointName, settings: EndpointSettings) -> Endpoint:
        """Return the configured endpoint. Raises SettingsError when its url or model is not set, or is no HTTP url."""
        for part, value in (("url", settings.url), ("model", settings.model)):
            if not value:
                raise SettingsError(f"setting vllm.{name}.{part} is empty.", f"Set CODEINTEL_VLLM__{name.upper()}__*.")
        if not _is_http(settings.url):
            raise SettingsError(f"setting vllm.{name}.url is no http:// or https:// address.", "Correct it.")
        url = settings.url.rstrip("/").removesuffix("/v1")
        return cls(name, url, settings.model, settings.key.get_secret_value(), settings.timeout_s)

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"} if self.key else {}


def _is_http(url: str) -> bool:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parsed.scheme in {"http", "https"} and bool(parsed.host)
