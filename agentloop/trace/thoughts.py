"""What an agent says when it sees that it has gone wrong: revision thoughts for spliced trajectories (Agent-R, arXiv:2501.11425, section
3.2). The words are ours; a recipe may give its own, in the format that its environment's turns have.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

THOUGHTS = (
    "Wait, something went wrong in what I just did. I will not go on like this; I return to the goal and choose a better action.",
    "My last action did not help. Let me set it aside, look at the task once more and try another way.",
    "Looking back, I have made a mistake. I should correct it now instead of building on it.",
    "This is leading nowhere. I will think again about what the task asks for and act on that.",
    "I see that I misjudged the situation. The next action has to put that right.",
    "That was not what the task needs. I will change my plan and continue with a step that does.",
    "I have drifted away from the goal. From here on I will do only what brings it closer.",
    "The result tells me that my approach is wrong. I will take a different one.",
    "I overlooked something earlier. Now that I notice it, I will start over from what I know for certain.",
    "Repeating this would be pointless. Let me find the step where I erred and do it properly.",
)


def choose(thoughts: Sequence[str], *seed: object) -> str:
    """One of the thoughts, always the same one for equal seeds."""
    return random.Random("/".join(map(str, seed))).choice(list(thoughts))
