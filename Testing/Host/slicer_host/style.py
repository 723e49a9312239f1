"""The look of the application: Qt's Fusion style with a calm light palette."""

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
_DISABLED = "#9aa2ad"
_FONT_SIZE_PT = 9.5


def apply_style(app) -> None:
    """Give the application its style, palette and font."""
    app.setStyle("Fusion")
    palette = QtGui.QPalette()
    for role, color in _COLORS.items():
        palette.setColor(getattr(QtGui.QPalette, role), QtGui.QColor(color))
    for role in ("WindowText", "Text", "ButtonText"):
        palette.setColor(QtGui.QPalette.Disabled, getattr(QtGui.QPalette, role), QtGui.QColor(_DISABLED))
    app.setPalette(palette)
    families = [name for name in ("Inter", "Noto Sans", "DejaVu Sans") if name in QtGui.QFontDatabase.families()]
    font = QtGui.QFont(families[0]) if families else app.font()
    font.setPointSizeF(_FONT_SIZE_PT)
    app.setFont(font)
