"""Which tokens make up one step, and which of them feeds the policy and the world model (section 2.5)."""

from __future__ import annotations

from dataclasses import dataclass

from omnirl.errors import OmniRLError

FUSED = "fused"
STAR = "odtawr"


@dataclass(frozen=True)
class Layout:
    """`tokens` of a step, of "o", "p", "t", "a", "r" in order, or "f" alone for the fused token.

    `policy_slot` and `world_slot` are places in `tokens`. The policy's slot comes before tag, action and
    reward, so that it cannot see them; the world model's has seen the action and not the outcome.
    """

    tokens: str
    policy_slot: int
    world_slot: int | None

    @property
    def size(self) -> int:
        """Tokens a step."""
        return len(self.tokens)


def parse_layout(name: str) -> Layout:
    """Read "star", "fused", or the official code's letters ("odtawr" is star; "s" is another name of "o").

    A d or w marks the token before it. Without d the policy reads the last of the state and prompt tokens,
    without w there is no world model. Raises `OmniRLError` for letters that make no layout.
    """
    if not isinstance(name, str):
        raise OmniRLError(f"layout is {name!r}; it must be text, such as 'star'")
    if name == FUSED:
        return Layout("f", 0, None)
    letters = (STAR if name == "star" else name).replace("s", "o")
    tokens = "".join(letter for letter in letters if letter not in "dw")
    marks = {mark: len(letters[: letters.find(mark)].replace("d", "").replace("w", "")) - 1 for mark in "dw"}
    before = tokens[: min((tokens.find(letter) for letter in "tar" if letter in tokens), default=0)]
    policy = marks["d"] if "d" in letters else len(before) - 1
    world = marks["w"] if "w" in letters else None
    good = (
        set(tokens) <= set("optar")
        and len(set(letters)) == len(letters)
        and {"o", "a"} <= set(tokens)
        and "o" in before
        and tokens.find("o") <= policy < len(before)
        and (world is None or tokens.find("a") <= world < (tokens + "r").find("r"))
    )
    if not good:
        raise OmniRLError(
            f"layout {name!r} is none; it may be 'star', 'fused', or each of the letters o p t a r at most "
            "once, o and p first, with d after the token of the policy and w after that of the world model "
            "(such as 'podtaw')"
        )
    return Layout(tokens, policy, world)
