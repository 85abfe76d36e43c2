"""The audit log: who did what and when, in a file that can only grow, each entry bound to the one before it."""

from __future__ import annotations

from pilotage.services.audit.chain import Link, Verdict, verify
from pilotage.services.audit.log import AuditLog, AuditStatistics, read_log

__all__ = ["AuditLog", "AuditStatistics", "Link", "Verdict", "read_log", "verify"]
