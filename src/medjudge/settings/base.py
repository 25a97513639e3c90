"""The base of every configuration object, and the sections that more than one floor reads. No torch here or below."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from pydantic.fields import FieldInfo

from medjudge.names import file_name_trouble, shown


class Settings(BaseModel):
    """A frozen section of a recipe. Keys it does not know are refused."""

    # Validators are built when first used, for a fast start-up: no command uses all sections.
    # A setting that shares its name with what a class is asked for has an alias, and is known by that everywhere.
    model_config = ConfigDict(
        extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False, serialize_by_alias=True
    )

    @classmethod
    def by_name(cls) -> dict[str, FieldInfo]:
        """The settings by the names that a recipe gives them."""
        return {info.alias or name: info for name, info in cls.model_fields.items()}


_OWN_FIELDS = frozenset(
    {
        *("model", "messages", "temperature", "seed", "max_tokens", "max_completion_tokens", "n", "stream"),
        *("logprobs", "top_logprobs", "prompt_logprobs", "add_generation_prompt", "continue_final_message"),
    }
)


class EndpointSettings(Settings):
    """How an OpenAI-compatible endpoint is asked. The first six settings decide its answers."""

    temperature: Annotated[float, Field(ge=0)] | Literal["default"] = 0.0
    """`default` sends none: some reasoning models refuse any."""
    seed: int | Literal["default"] = 42
    """`default` sends none. A server may ignore it; what it says of itself is recorded."""
    reasoning_tokens: int = Field(0, ge=0)
    """Added to the task's limit for a model that reasons unseen, since the server counts those tokens against it."""
    extra: Mapping[str, Any] = Field(default_factory=dict)
    """Further fields of the request: `{chat_template_kwargs = {enable_thinking = false}}` for vLLM and llama.cpp."""
    top_logprobs: int = Field(20, ge=1)
    """In mode labels: how many of the likeliest tokens are asked for at each place. OpenAI and Ollama allow 20, vLLM
    what its `--max-logprobs` says (20), llama.cpp any number."""
    label_scoring: Literal["auto", "prompt", "continue", "first"] = "auto"
    """In mode labels. `prompt`: the server scores an answer that is handed to it (vLLM). `continue`: it goes on from
    one that is begun (llama.cpp). `first`: read where the model writes its label. `auto` finds out."""

    limit_key: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    """The request's name for the token limit; `auto`: the newer one for OpenAI's own hosts, else the older."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key. An empty name sends none."""
    concurrency: int = Field(8, ge=1)
    """Requests in flight at once."""
    requests_per_minute: float | None = Field(None, gt=0)
    """Retries count too. Requests are spaced evenly."""
    tokens_per_minute: float | None = Field(None, gt=0)
    """Prompt and completion tokens, estimated before a request and corrected by the server's own count."""
    # A reasoning model on a busy server may think for a minute before its first token.
    timeout_s: float = Field(120.0, gt=0)
    """For one whole request, answer included."""
    max_retries: int = Field(6, ge=0)
    """Further attempts after a dropped connection, a timeout, HTTP 408, 409, 429 or 5xx."""
    retry_wait_s: float = Field(0.5, gt=0)
    """Wait before the first retry. It doubles each time up to 30 s; half to all of it is waited, by chance."""
    max_outage_s: float = Field(300.0, ge=0)
    """How long a server that has answered may be out of reach, as in a restart, before attempts count."""
    max_retry_after_s: float = Field(120.0, gt=0)
    """Longest wait that a server may ask for (`Retry-After`); a call that is asked to wait longer has failed."""
    max_failed_share: float = Field(0.05, ge=0, le=1)
    """Share of calls that may fail after all retries before the run stops, counted over at least 20."""
    cache: Path | None = None
    """SQLite file of answers; default `~/.cache/medjudge/endpoints.sqlite` (XDG_CACHE_HOME is honoured)."""
    usd_per_million_in: float | None = Field(None, ge=0)
    usd_per_million_out: float | None = Field(None, ge=0)

    @field_validator("extra")
    @classmethod
    def _no_second_word(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        if taken := sorted(_OWN_FIELDS & value.keys()):
            raise ValueError(
                f"{', '.join(taken)}: set by the task or by settings of their own: take them out of `extra`"
            )
        return value


LABEL_SETTINGS = frozenset({"top_logprobs", "label_scoring"})
"""Endpoint settings that decide an answer in mode labels alone."""
ANSWER_SETTINGS = frozenset({"temperature", "seed", "reasoning_tokens", "extra"}) | LABEL_SETTINGS
"""Endpoint settings that decide an answer."""


def without_transport(tree: Any) -> Any:
    """A dumped recipe, or a part of it, without the endpoint settings that decide no answer, at whatever depth.

    A run that was cut off because an endpoint failed goes on under a lower `concurrency` where it stopped.
    """
    if not isinstance(tree, dict):
        return tree
    if tree.keys() == EndpointSettings.model_fields.keys():
        return {key: value for key, value in tree.items() if key in ANSWER_SETTINGS}
    return {key: without_transport(value) for key, value in tree.items()}


RESERVED_SPLITS = frozenset({"data", "inputs", "leakage", "lint", "manifest", "rejected"})
"""Files that the prepare stage writes beside the splits."""


def split_name(name: str) -> str:
    """`name`, if a split can be called so. Raises ValueError."""
    if (why := file_name_trouble(name, RESERVED_SPLITS)) is not None:
        raise ValueError(f"a split cannot be called {shown(name)}: {why}")
    return name


SplitName = Annotated[str, AfterValidator(split_name)]
"""Name of a split, checked when a recipe is read."""
