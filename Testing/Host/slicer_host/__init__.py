"""A host for Slicer scripted modules: the genuine slicer-core scene and views under a Qt that behaves like PythonQt.

`slicer_host.application.start_application` starts it inside a process; `python -m slicer_host` starts it as a program
that takes the options of Slicer's own command line. Importing the package chooses how to draw, which must come before
Qt and VTK are loaded.
"""

from slicer_host.display import choose_display

choose_display()
