"""Which tasks read which options of :class:`trainables.task_sets.TasksConfig`."""

from __future__ import annotations

_EDGE = frozenset({("nyud", "edge"), ("pascal_context", "edge")})
READERS: dict[str, frozenset[tuple[str, str]]] = {
    "normal_loss": frozenset(
        {("taskonomy", "normal"), ("nyud", "normals"), ("pascal_context", "normals"), ("nyuv2", "normal")}
    ),
    "taskonomy_metrics": frozenset({("taskonomy", "depth_euclidean"), ("taskonomy", "principal_curvature")}),
    "absent_classes": frozenset(
        {
            ("nyud", "semseg"),
            ("pascal_context", "semseg"),
            ("pascal_context", "human_parts"),
            ("nyuv2", "semseg"),
            ("cityscapes", "semseg"),
        }
    ),
    "saliency_scores": frozenset({("pascal_context", "saliency")}),
    "edge_weight": _EDGE,
    "edge_thresholds": _EDGE,
    "edge_max_dist": _EDGE,
    "edge_nms": _EDGE,
    "edge_truth": _EDGE,
}
"""Option to the tasks, as (set, task), that read it."""
