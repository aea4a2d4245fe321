"""A directory of logs: many logs under one name, on one or several servers."""

from esource.directory.crew import Crew
from esource.directory.directory import Directory
from esource.directory.records import LogEntry
from esource.directory.upkeep import LogReport, Outcome

__all__ = ["Crew", "Directory", "LogEntry", "LogReport", "Outcome"]
