"""Trees written by hand, with ids small enough to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentloop.trace.tree import Draw, Tree, Turn

STOP = 9


def episode(
    sample: int,
    replies: Sequence[Sequence[int]],
    *,
    reward: float = 1.0,
    done: bool = True,
    fresh_at: dict[int, str] | None = None,
    **last: Any,
) -> list[Turn]:
    """One sample's turns: prompt ids (100 + turn, 0), the reply's ids and the stop token; the reward comes with the last turn."""
    turns: list[Turn] = []
    for k, reply in enumerate(replies):
        fresh = (fresh_at or {}).get(k, "start" if k == 0 else None)
        is_last = k == len(replies) - 1
        ids = (*reply, STOP)
        turns.append(
            Turn(
                id=f"{sample}.{k}",
                parent=f"{sample}.{k - 1}" if k else None,
                extends=f"{sample}.{k - 1}" if fresh is None else None,
                fresh=fresh,  # type: ignore[arg-type]
                prompt_ids=(100 + k, 0),
                completion_ids=ids,
                logprobs=tuple(-0.5 - i for i in range(len(ids))),
                text="",
                action=str(reply),
                observation="seen",
                reward=reward if is_last else 0.0,
                done=done and is_last,
                draw=Draw(adapter="actor-000-abc", temperature=1.0),
                **(last if is_last else {}),
            )
        )
    return turns


def tree(task: str, *episodes: Sequence[Turn], stage: str = "trees") -> Tree:
    """One task's tree of the given samples."""
    return Tree(
        id=f"000/{stage}/{task}",
        task=task,
        environment="toy",
        split="train",
        turns=tuple(turn for turns in episodes for turn in turns),
        samples=tuple(range(len(episodes))),
    )
