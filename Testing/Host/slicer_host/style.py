"""The look of the application: Qt's Fusion style with a calm palette, light or dark."""

from slicer_host.pythonqt import QtGui

_COLORS = {
    "Window": "#f4f5f7",
    "WindowText": "#1f2328",
    "Base": "#ffffff",
    "AlternateBase": "#f6f8fa",
    "Text": "#1f2328",
    "Button": "#e9ecf1",
    "ButtonText": "#1f2328",
    "Midlight": "#dfe5ee",
    "Mid": "#b9c0ca",
    "Highlight": "#2f6fb5",
    "HighlightedText": "#ffffff",
    "ToolTipBase": "#fffbe6",
    "ToolTipText": "#1f2328",
    "PlaceholderText": "#818a95",
}
_DARK_COLORS = {
    "Window": "#2b2d31",
    "WindowText": "#e4e6ea",
    "Base": "#1f2124",
    "AlternateBase": "#26282c",
    "Text": "#e4e6ea",
    "Button": "#3a3d43",
    "ButtonText": "#e4e6ea",
    "Midlight": "#464a52",
    "Mid": "#55595f",
    "Highlight": "#3d7fc4",
    "HighlightedText": "#ffffff",
    "Link": "#79b4f2",
    "ToolTipBase": "#3a3d43",
    "ToolTipText": "#e4e6ea",
    "PlaceholderText": "#8c929b",
}
_DISABLED, _DARK_DISABLED = "#9aa2ad", "#7b818a"
_FONT_SIZE_PT = 9.5


def apply_style(app, *, isDark: bool = False) -> None:
    """Give the application its style, palette and font."""
    app.setStyle("Fusion")
    palette = QtGui.QPalette()
    for role, color in (_DARK_COLORS if isDark else _COLORS).items():
        palette.setColor(getattr(QtGui.QPalette, role), QtGui.QColor(color))
    disabled = QtGui.QColor(_DARK_DISABLED if isDark else _DISABLED)
    for role in ("WindowText", "Text", "ButtonText"):
        palette.setColor(QtGui.QPalette.Disabled, getattr(QtGui.QPalette, role), disabled)
    app.setPalette(palette)
    families = [name for name in ("Inter", "Noto Sans", "DejaVu Sans") if name in QtGui.QFontDatabase.families()]
    font = QtGui.QFont(families[0]) if families else app.font()
    font.setPointSizeF(_FONT_SIZE_PT)
    app.setFont(font)
