"""Look-alikes of the CTK and Slicer widgets; importing this package registers all of them."""

from slicer_host.widgets import (
    ctk_buttons,
    ctk_choices,
    ctk_containers,
    ctk_numbers,
    ctk_paths,
    ctk_ranges,
    mrml_checkable_node_selector,
    mrml_markups,
    mrml_node_selector,
    mrml_numbers,
    mrml_segments,
    mrml_subject_hierarchy,
    mrml_widget,
)

__all__ = [
    "ctk_buttons",
    "ctk_choices",
    "ctk_containers",
    "ctk_numbers",
    "ctk_paths",
    "ctk_ranges",
    "mrml_checkable_node_selector",
    "mrml_markups",
    "mrml_node_selector",
    "mrml_numbers",
    "mrml_segments",
    "mrml_subject_hierarchy",
    "mrml_widget",
]
