"""The figures of the report, in their order. A figure is one module with its measure, its drawing and its words.

To add one, write a module with ``sections(study) -> list[Section]`` and name it here.
"""

from cxgrad_jax.report.figures import (
    accuracy,
    calibration,
    conditioning,
    embeddings,
    gradient_norms,
    landscape,
    questions,
    similarity,
)

FIGURES = (accuracy, questions, calibration, gradient_norms, similarity, embeddings, landscape, conditioning)
