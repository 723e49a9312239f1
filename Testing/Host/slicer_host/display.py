"""Choose how windows and images are drawn before Qt and VTK are loaded."""

import ctypes.util
import os
import sys


def has_display() -> bool:
    """Tell whether a screen is there that Qt can open a window on."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def choose_display() -> None:
    """Fall back to offscreen drawing where there is no screen; settings made by the user are left alone."""
    if not os.environ.get("QT_QPA_PLATFORM") and not has_display():
        os.environ["QT_QPA_PLATFORM"] = "offscreen"
    if not os.environ.get("VTK_DEFAULT_OPENGL_WINDOW") and os.environ.get("QT_QPA_PLATFORM") == "offscreen":
        egl = ctypes.util.find_library("EGL")
        os.environ["VTK_DEFAULT_OPENGL_WINDOW"] = "vtkEGLRenderWindow" if egl else "vtkOSOpenGLRenderWindow"
