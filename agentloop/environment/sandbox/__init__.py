"""A sandbox for Python that a model wrote: a process of its own, without network, files, other processes, and with limits.

    from agentloop.environment.sandbox import Limits, Sandbox, programs

`limits.py` names the protections and limits, `confinement.py` puts them up, `nursery.py` holds the processes. docs/environments.md tells
how an environment uses it, and what it does not protect against.
"""

from agentloop.environment.sandbox.limits import Limits, Output, Protection
from agentloop.environment.sandbox.programs import programs
from agentloop.environment.sandbox.python import Sandbox

__all__ = ["Limits", "Output", "Protection", "Sandbox", "programs"]
