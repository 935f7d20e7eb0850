"""Who judges: from a role's name in a recipe to somebody who can be asked, or who scores."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from agentloop.critic import AskSettings, ChatRespondent, EngineRespondent, JudgeProgress
from agentloop.critic.respondent import Respondent
from agentloop.critic.scored_value import ScoredValue
from agentloop.critic.scoring import Scorer
from agentloop.critic.transcript import SYSTEM
from agentloop.critic.value import ValueCritic
from agentloop.engine.chat import ChatServer
from agentloop.engine.structured import StructuredOutputs
from agentloop.loop.context import Context, StageRun
from agentloop.recipe.sample import Critic


async def respondent(name: str, context: Context, stack: AsyncExitStack, about: dict[str, Any]) -> Respondent:
    """The role of that name, ready to be asked: its present adapter or the base on the engine, or the model behind its URL.

    Args:
        name: The role; not a scoring model.
        context: The run.
        stack: What has to be closed in the end is pushed onto it.
        about: Gets "adapter", who it is, and "adapter_check" where one was made; when `stack` is closed, "structured_outputs", how a
            server took what was to hold its answers: for the report.

    Raises:
        RunFailed: The engine or the server cannot be reached, or does not generate with the role's adapter.
        Mistake: The key of a model behind a URL is not set.
    """
    role = context.recipe.role(name)
    system = role.prompt if role.prompt is not None else SYSTEM
    if role.url is not None:
        engine = context.recipe.engine
        structured = None if role.structured_outputs is None else StructuredOutputs(role.structured_outputs)
        server = ChatServer(
            role.url, role.model, key=role.key, request_timeout=engine.request_timeout, retries=engine.retries, structured=structured
        )
        stack.push_async_callback(server.close)
        if structured is not None:
            stack.callback(lambda: about.update(structured_outputs=structured.told()))
        await server.connect()
        about["adapter"] = server.name
        return ChatRespondent(server, name, system)
    adapter, check = await context.serving.serve(context.lineage.versions.get(context.lineage.playing(name)))
    about |= {"adapter": adapter} | ({"adapter_check": check} if check else {})
    return EngineRespondent(await context.serving.engine(), context.renderer, adapter, name, system)


async def scorer(name: str, context: Context, about: dict[str, Any]) -> Scorer:
    """The scoring model of that role, loaded; `about` gets its name as "adapter". Raises `RunFailed` and `Mistake`."""
    from agentloop.critic.scorer import TransformersScorer
    from agentloop.model import resolve

    role = context.recipe.role(name)
    assert role.model is not None and role.scoring != "embedder"
    about["adapter"] = role.model
    return await TransformersScorer.open(resolve(role.model).path, name=role.model, kind=role.scoring)


async def value_critic(
    critic: Critic, run: StageRun, context: Context, progress: JudgeProgress, stack: AsyncExitStack, about: dict[str, Any]
) -> ValueCritic | ScoredValue:
    """Whoever values the turns of a search in this stage; see `respondent`."""
    if context.recipe.role(critic.role).kind == "scoring":
        return ScoredValue(await scorer(critic.role, context, about), role=critic.role, stage=run.stage.id, progress=progress)
    at = run.schedule_at
    settings = AskSettings(critic.temperature.at(at), critic.max_tokens.at(at), critic.votes.at(at), critic.concurrency)
    asked = await respondent(critic.role, context, stack, about)
    prompt = {} if critic.prompt is None else {"prompt": critic.prompt}
    return ValueCritic(asked, settings, scale=critic.scale, stage=run.stage.id, progress=progress, **prompt)


def facts(progress: JudgeProgress) -> dict[str, Any]:
    """What the report of a run shows of the questions of one stage; numbers of this attempt."""
    return {
        "questions": progress.asked,
        "asked_again": progress.again,
        "unreadable_answers": progress.unreadable,
        "shortened": progress.shortened,
        "retried": dict(progress.retried),
        "judge_tokens": {"prompt": progress.prompt, "cached": progress.cached, "generated": progress.generated},
    }


def remark(about: dict[str, Any]) -> str:
    """What a person should know of how a server took `structured_outputs`, to follow a stage's note; "" where there is nothing to say."""
    took = about.get("structured_outputs")
    if took is None:
        return ""
    if took["refused"]:
        return f" · {about['adapter']} refuses {took['field']}: {took['refused']} answers were asked for without it"
    return f" · {about['adapter']} does not keep to {took['field']}: {took['ignored']} answers were not held" if took["ignored"] else ""
