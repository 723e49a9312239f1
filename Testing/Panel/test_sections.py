"""Sections behind one protocol: the panel tells all of them the same, and knows none of them by name."""

import ast
import dataclasses

import pytest
import slicer
from conftest import REPOSITORY
from panel_driver import FAKE_WORKER, spheres, spin

PANEL = REPOSITORY / "UNetSegmentation" / "UNetSegmentationPanel" / "panel.py"


@pytest.fixture
def withFake(panel):  # noqa: ARG001
    """A panel of its own with one more section, which notes what it is told."""
    from UNetSegmentationPanel import panel as panel_module
    from UNetSegmentationPanel.background.worker_process import WorkerProcess
    from UNetSegmentationPanel.jobs.jobs import Jobs
    from UNetSegmentationPanel.sections.section import Section

    class FakeSection(Section):
        told: tuple = ()

        def _note(self, *what):
            self.told = (*self.told, what)

        def follow(self, parameters):
            self._note("follow", parameters)

        def refresh(self, state):
            self._note("refresh", state)

        def showProgress(self, progress):
            self._note("showProgress", progress)

        def cleanup(self):
            self._note("cleanup")

        def clear(self):
            self.told = ()

        @property
        def names(self):
            return [what[0] for what in self.told]

        @property
        def state(self):
            return next(what[1] for what in reversed(self.told) if what[0] == "refresh")

    form = slicer.util.loadUI(str(PANEL.parents[1] / "Resources" / "UI" / "UNetSegmentation.ui"))
    form.setMRMLScene(slicer.mrmlScene)
    made = panel_module.Panel(
        form,
        Jobs(WorkerProcess(FAKE_WORKER)),
        requirements=PANEL,
        sections=(*panel_module.SECTIONS, FakeSection),
    )
    made.enter()
    yield made, made.sections[-1]
    made.follow(None)
    made.cleanup()
    # Its widgets hold on to what they call.
    form.delete()


def test_a_section_is_told_of_the_scene_of_the_state_and_of_the_end(panel, withFake):
    made, fake = withFake
    volume = panel.addVolume()
    parameters = panel.parameters
    assert fake.told == ()
    made.follow(parameters)
    assert fake.names == ["follow", "refresh"]
    assert fake.told[0][1] is parameters
    assert fake.state.parameters.inputVolume is volume
    fake.clear()
    parameters.mirror = True
    assert fake.names == ["refresh"]
    fake.clear()
    made.follow(None)
    assert fake.told == (("follow", None),)
    fake.clear()
    made.refresh()
    assert fake.told == ()
    made.cleanup()
    assert fake.told == (("cleanup",),)


def test_the_state_is_computed_once_for_all_and_cannot_be_changed(panel, withFake):
    made, fake = withFake
    panel.addVolume()
    made.follow(panel.parameters)
    with pytest.raises(dataclasses.FrozenInstanceError):
        fake.state.whyNoRun = "nothing"
    seen = []
    for section in made.sections:
        section.refresh = seen.append
    made.refresh()
    assert len(seen) == len(made.sections)
    assert all(state is seen[0] for state in seen)


def test_a_move_of_the_mouse_that_changes_nothing_brings_nothing_up_to_date(panel, withFake):
    made, fake = withFake
    volume = panel.addVolume()
    made.follow(panel.parameters)
    fake.clear()
    made.refresh(onlyIfChanged=True)
    assert fake.told == ()
    volume.SetSpacing(1.0, 1.0, 4.0)
    fake.clear()
    made.dependencies.state = dataclasses.replace(made.dependencies.state, kind="missing")
    made.refresh(onlyIfChanged=True)
    assert fake.names == ["refresh"]
    assert "Install the missing packages" in fake.state.whyNoRun


def test_a_section_sees_a_run_by_its_state_and_its_progress(panel, withFake):
    made, fake = withFake
    panel.addVolume(spheres(24))
    panel.parameters.model = "plain"
    made.follow(panel.parameters)
    assert fake.state.canRun
    fake.clear()
    made.ui.applyButton.click()
    assert fake.state.jobKind == "segment"
    assert fake.state.isSceneInUse
    assert not fake.state.canRun
    assert spin(lambda: not made.jobs.isRunning)
    assert "showProgress" in fake.names
    assert (fake.state.jobKind, fake.state.progress, fake.state.outcome.kind) == ("", None, "done")


def test_what_a_section_stores_reaches_all_of_them_and_what_it_only_shows_is_not_stored(panel, withFake):
    made, fake = withFake
    panel.addVolume()
    made.follow(panel.parameters)
    fake.clear()
    made.choose(preset="ct")
    assert panel.parameters.preset == "ct"
    assert fake.state.choices.preset == "ct"

    def chooseWhileRefreshing(_state):
        made.choose(preset="xray")
        made.edit(lambda parameters: setattr(parameters, "preset", "xray"))

    fake.refresh = chooseWhileRefreshing
    made.refresh()
    assert panel.parameters.preset == "ct"


def test_the_panel_names_every_section_only_where_it_lists_them():
    from UNetSegmentationPanel.panel import SECTIONS

    names = [node.id for node in ast.walk(ast.parse(PANEL.read_text())) if isinstance(node, ast.Name)]
    assert {kind.__name__: names.count(kind.__name__) for kind in SECTIONS} == {kind.__name__: 1 for kind in SECTIONS}


def test_every_section_is_in_the_list():
    from UNetSegmentationPanel.panel import SECTIONS
    from UNetSegmentationPanel.sections.section import Section

    classes = {
        node.name
        for path in (PANEL.parent / "sections").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") == "Section" for base in node.bases)
    }
    assert classes == {kind.__name__ for kind in SECTIONS}
    assert all(issubclass(kind, Section) for kind in SECTIONS)
