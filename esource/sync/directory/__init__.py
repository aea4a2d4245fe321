"""A directory of logs for programs without an event loop: the names of `esource.directory`."""

from esource.directory.records import LogEntry
from esource.directory.upkeep import LogReport, Outcome
from esource.sync.directory.crew import Crew
from esource.sync.directory.directory import Directory

__all__ = ["Crew", "Directory", "LogEntry", "LogReport", "Outcome"]
