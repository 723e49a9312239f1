"""Stand-in for `slicer.i18n`: texts stay as they are written."""


def getContext(source_file):
    """Return the translation context of a source file: its module's name."""
    from pathlib import Path

    return Path(source_file).stem


def tr(text):
    """Return the text in the language of the application, which is the source's."""
    return text


def translate(context, text):  # noqa: ARG001 - Slicer's signature
    """Return the text of a context in the language of the application, which is the source's."""
    return text
