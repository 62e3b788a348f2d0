"""What a person gets at the end: final-report.json and one page to look at."""

from symbio_core.report.build import build, verdict_sentence
from symbio_core.report.dials import in_words as change_in_words
from symbio_core.report.page import render
from symbio_core.report.schema import FinalReport, json_schema, schema_text, to_json

__all__ = [
    "FinalReport",
    "build",
    "change_in_words",
    "json_schema",
    "render",
    "schema_text",
    "to_json",
    "verdict_sentence",
]
