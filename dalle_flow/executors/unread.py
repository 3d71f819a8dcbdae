"""What a text model will not read of a prompt, said to the person before anything runs."""

from ..models.text.known_words import unknown_words


def unread(prompt: str, tokens: int, room: int, known_words: frozenset[str] | None) -> list[str]:
    """A remark on words the model has never seen, and one on an end that is cut off.

    Args:
        tokens: how many the prompt has, with those put around it.
        room: how many the model reads.
        known_words: all that the model was trained on; None where nobody knows.
    """
    found = []
    if known_words is not None and (strangers := unknown_words(prompt, known_words)):
        names = ", ".join(repr(word) for word in strangers)
        found.append(f"I do not know {names}; the embedded family knows {len(known_words)} words, see docs/embedded.md")
    if tokens > room:
        found.append(f"the prompt has {tokens} tokens and this model reads {room}; its end is not read")
    return found
