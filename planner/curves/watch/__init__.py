"""Watching a run while it trains.

- :class:`Follower`: a growing log, of any format that the archive reads.
- :func:`assess`: what can be said of a run so far.
- :func:`command_hook`, :func:`webhook`, :func:`tell`: telling somebody.
"""

from __future__ import annotations

from planner.curves.watch.assess import Alarm, Assessment, assess
from planner.curves.watch.follow import Follower, Told
from planner.curves.watch.hooks import Hook, command_hook, tell, webhook

__all__ = [
    "Alarm",
    "Assessment",
    "Follower",
    "Hook",
    "Told",
    "assess",
    "command_hook",
    "tell",
    "webhook",
]
