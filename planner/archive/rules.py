"""What the rules of a mapping file say about each file."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from planner.archive.policies import Policy, check_policy

if TYPE_CHECKING:
    import collections.abc
    from collections.abc import Sequence

    from planner.archive.mapping import Rule


@dataclass(frozen=True)
class Applied:
    """What the mapping file says about one file.

    Attributes:
        reader: Name of the reader to use, or None to choose by content.
        ignore: Whether to leave the file out.
        run: Name of the run that the file is a part of, if a rule says so.
        fields: Canonical field to the log's own name.
        facts: Declared facts.
        policy: How repairs are made.
    """

    reader: str | None = None
    ignore: bool = False
    run: str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    facts: tuple[tuple[str, Any], ...] = ()
    policy: Policy = field(default_factory=Policy)


_NOTHING = Applied()  # one object: it is sent from process to process with every file


class Mapping:
    """The rules of a mapping file; without one, none.

    Args:
        rules: In order; where two say something about one file, the later one holds.
        policy: How repairs of all files are made, whatever the rules say.

    Raises:
        MappingError: If the policy has an unknown name or value.
    """

    def __init__(
        self, rules: Sequence[Rule] = (), policy: collections.abc.Mapping[str, str] | None = None
    ) -> None:
        self._rules = rules
        self._policy: dict[str, Any] = check_policy(policy or {})
        self._default = Applied(policy=Policy(**self._policy)) if self._policy else _NOTHING

    def with_policy(self, policy: collections.abc.Mapping[str, str] | None) -> Mapping:
        """Return the same rules with a policy for all files.

        Raises:
            MappingError: If it has an unknown name or value.
        """
        return Mapping(self._rules, {**self._policy, **policy}) if policy else self

    def apply(self, source: str) -> Applied:
        """Return what all rules together say about a file."""
        if not self._rules:
            return self._default
        reader: str | None = None
        ignore = False
        run: str | None = None
        fields: dict[str, str] = {}
        facts: dict[str, Any] = {}
        policy: dict[str, Any] = {}
        for rule in self._rules:
            if not rule.matches(source):
                continue
            reader = rule.reader or reader
            ignore = ignore or rule.ignore
            found = re.search(rule.run, source) if rule.run else None
            if found is not None and found[1]:
                run = found[1]
            fields |= rule.columns
            facts |= rule.constants.facts()
            policy |= rule.policy.model_dump(exclude_none=True)
        policy |= self._policy
        return Applied(
            reader, ignore, run, tuple(fields.items()), tuple(facts.items()), Policy(**policy)
        )


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str)


def canonical_json(value: Any) -> str:
    """Return JSON that is the same for equal values."""
    return _CANONICAL.encode(value)
