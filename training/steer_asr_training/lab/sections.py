"""The sections of a report, in their order.

for section in sections(read_results("runs/lab-base")):
    section.title, section.pictures, section.tables
"""

from __future__ import annotations

from dataclasses import replace

from steer_asr_training.lab import concept_sections, meaning_sections, quality_sections
from steer_asr_training.lab.results import Results
from steer_asr_training.lab.section import Section

MAKERS = {
    "evaluate": (quality_sections.quality_section, quality_sections.splice_section),
    "stability": (quality_sections.stability_section,),
    "features": (meaning_sections.domain_section, meaning_sections.features_section),
    "search": (meaning_sections.search_section,),
    "phonemes": (concept_sections.phonemes_section,),
    "boundaries": (concept_sections.boundaries_section,),
    "probe": (concept_sections.probe_section,),
    "erase": (concept_sections.erasure_section,),
}
"""By the command that makes their data."""


def sections(results: Results) -> list[Section]:
    """One section per analysis; those without data say which command makes them."""
    made = []
    for command, makers in MAKERS.items():
        left_out = [f"{name}: {why}" for name, why in results.left_out.items() if name.split()[0] == command]
        made += [replace(make(results), missing=left_out) for make in makers]
    return made
