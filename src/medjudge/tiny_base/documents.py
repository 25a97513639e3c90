"""What the tiny base learns from: text, chats, and stretches of text with a weight of their own in the loss."""

from __future__ import annotations

from dataclasses import dataclass

from medjudge.records import Message


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a document."""

    text: str
    weight: float = 0.0
    """Of its tokens' loss; 0 is only read."""


@dataclass(frozen=True, slots=True)
class MarkedChat:
    """A chat of one turn whose question has something to learn, too."""

    asked: tuple[Span, ...]
    answer: str | tuple[Span, ...]
    """Text is learned as a chat's answer is."""


Document = str | list[Message] | tuple[Span, ...] | MarkedChat
