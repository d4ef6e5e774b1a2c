"""The report on a checkpoint: one HTML page for people, JSON for programs."""

from ssd_dist.report.content import ReportContent
from ssd_dist.report.write import write_report

__all__ = ["ReportContent", "write_report"]
