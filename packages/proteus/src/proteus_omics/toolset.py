"""A session's tools for an agent of pydantic-ai: `Agent(model, toolsets=[function_toolset(session)])`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proteus_omics.engine.loop import TOOL_FAILURES
from proteus_omics.errors import MissingExtraError
from proteus_omics.sessions import Session

try:
    from pydantic_ai import FunctionToolset, ModelRetry, Tool
except ImportError as error:
    raise MissingExtraError(
        "a toolset of pydantic-ai needs an optional extra: pip install 'proteus-omics[llm]'"
    ) from error


def function_toolset(session: Session) -> FunctionToolset[Any]:
    """Every action of the session as a tool; what a tool refuses is told to the model to try again."""
    tools = [
        Tool[Any].from_schema(
            _caller(session, action.name),
            action.name,
            action.description,
            dict(action.schema),
            sequential=True,
        )
        for action in session.actions()
    ]
    return FunctionToolset(tools, id="proteus-omics")


def _caller(session: Session, name: str) -> Callable[..., str]:
    def call(**arguments: Any) -> str:
        try:
            return session.call(name, arguments).text
        except TOOL_FAILURES as error:
            raise ModelRetry(str(error)) from error

    return call
