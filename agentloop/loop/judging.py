"""Who judges: from a role's name in a recipe to somebody who can be asked."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from agentloop.critic import ChatRespondent, EngineRespondent
from agentloop.critic.respondent import Respondent
from agentloop.critic.transcript import SYSTEM
from agentloop.engine.chat import ChatServer
from agentloop.loop.context import Context


async def respondent(name: str, context: Context, stack: AsyncExitStack, about: dict[str, Any]) -> Respondent:
    """The role of that name, ready to be asked: its present adapter or the base on the engine, or the model behind its URL.

    Args:
        name: The role; not a scoring model.
        context: The run.
        stack: What has to be closed in the end is pushed onto it.
        about: Gets "adapter", who it is, and "adapter_check" where one was made: for the report.

    Raises:
        RunFailed: The engine or the server cannot be reached, or does not generate with the role's adapter.
        Mistake: The key of a model behind a URL is not set.
    """
    role = context.recipe.role(name)
    system = role.prompt if role.prompt is not None else SYSTEM
    if role.url is not None:
        engine = context.recipe.engine
        server = ChatServer(role.url, role.model, key=role.key, request_timeout=engine.request_timeout, retries=engine.retries)
        stack.push_async_callback(server.close)
        await server.connect()
        about["adapter"] = server.name
        return ChatRespondent(server, name, system)
    adapter, check = await context.serving.serve(context.lineage.versions.get(context.lineage.playing(name)))
    about |= {"adapter": adapter} | ({"adapter_check": check} if check else {})
    return EngineRespondent(await context.serving.engine(), context.renderer, adapter, name, system)
