"""Before training, ``audit``: can the class be predicted from the background alone? After it, ``discover``.

``audit`` looks at a data set, ``discover`` at what a model looks at in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_bgdebias._lazy import lazy

if TYPE_CHECKING:
    from torch_bgdebias.audit.auditing import audit as audit
    from torch_bgdebias.audit.clusters import Cluster as Cluster
    from torch_bgdebias.audit.discovering import discover as discover
    from torch_bgdebias.audit.discovery import Discovery as Discovery
    from torch_bgdebias.audit.report import AuditReport as AuditReport
    from torch_bgdebias.audit.results import Finding as Finding, Giveaway as Giveaway, Reading as Reading
    from torch_bgdebias.audit.settings import AuditSettings as AuditSettings
else:
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "torch_bgdebias.audit.auditing": ["audit"],
            "torch_bgdebias.audit.clusters": ["Cluster"],
            "torch_bgdebias.audit.discovering": ["discover"],
            "torch_bgdebias.audit.discovery": ["Discovery"],
            "torch_bgdebias.audit.report": ["AuditReport"],
            "torch_bgdebias.audit.results": ["Finding", "Giveaway", "Reading"],
            "torch_bgdebias.audit.settings": ["AuditSettings"],
        },
    )
