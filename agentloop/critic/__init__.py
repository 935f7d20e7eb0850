"""Critics: they read the paths of a tree and add typed verdicts to it, and keep what was asked and answered as turns.

One file a critic: `outcome` (the environment's own word), `rubric`, `first_error`, `pairwise` (each a pure description of questions, which
`ask` puts to a role) and `scoring` (a scoring model). `judge` judges the trees of a whole stage; `value` and `scored_value` value the turns
of a search while it goes on.
"""

from agentloop.critic.ask import AskSettings, ModelJudge
from agentloop.critic.base import Critic, Judged, TreeJudge
from agentloop.critic.first_error import FirstError
from agentloop.critic.judge import JudgeReport, Limits, judge_trees
from agentloop.critic.outcome import OutcomeJudge
from agentloop.critic.pairwise import Pairwise
from agentloop.critic.progress import JudgeProgress
from agentloop.critic.respondent import ChatRespondent, EngineRespondent
from agentloop.critic.rubric import Rubric
from agentloop.critic.scoring import Scorer, ScoringJudge

__all__ = [
    "AskSettings",
    "ChatRespondent",
    "Critic",
    "EngineRespondent",
    "FirstError",
    "JudgeProgress",
    "JudgeReport",
    "Judged",
    "Limits",
    "ModelJudge",
    "OutcomeJudge",
    "Pairwise",
    "Rubric",
    "Scorer",
    "ScoringJudge",
    "TreeJudge",
    "judge_trees",
]
