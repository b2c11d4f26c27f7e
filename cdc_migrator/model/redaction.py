"""Take secrets out of text that leaves the process: by their form, and by what they are.

The safety net, not the rule: nobody writes a secret down in the first place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

HIDDEN = "***"
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^/@\s:]*):[^@/\s]+@")
_ASSIGNED = re.compile(
    r"(?i)\b((?:\w*password|passwd|pwd|secret|token|sasl\.jaas\.config)\"?'?\s*[=:]\s*)"
    r"(\"[^\"]*\"|'(?:[^'\\]|\\.)*'|[^\s,;&'\"}]+)"
)
# A shorter one cannot be told from a word; its forms above are hidden all the same.
_LEAST = 4


def redact(text: str) -> str:
    """The text without passwords in connection strings, URLs and assignments."""
    return _ASSIGNED.sub(rf"\g<1>{HIDDEN}", _URL_PASSWORD.sub(rf"\g<1>:{HIDDEN}@", text))


class Redactor:
    """Hides, beside what looks like a secret, what is known to be one, however it is written.

    Args:
        secrets: in clear; None and those under four characters are left to their forms.
    """

    def __init__(self, secrets: Iterable[str | None]) -> None:
        known = {one for one in secrets if one and len(one) >= _LEAST}
        spelled = {
            form
            for one in known
            for form in (
                one,
                quote(one, safe=""),
                quote_plus(one),
                one.replace("\\", "\\\\").replace('"', '\\"'),
                one.replace("\\", "\\\\").replace("'", "\\'"),
                one.replace("'", "''"),
            )
        }
        longest_first = sorted(spelled, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if spelled else None

    def __call__(self, text: str) -> str:
        """The text without them."""
        return redact(self._known.sub(HIDDEN, text) if self._known else text)
