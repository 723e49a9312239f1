"""Memory is foreseen: before a run is begun the panel says whether it fits."""

from panel_driver import spheres, spin
from test_region import atCentre, chooseRegion

TOO_MUCH = "The image needs &lt;b&gt;40&lt;/b&gt; GB of memory."


def test_what_does_not_fit_is_told_before_the_run_which_may_be_tried_nevertheless(panel):
    panel.addVolume()
    panel.chooseModel("vast")
    assert spin(lambda: panel.says == TOO_MUCH)
    assert panel.ui.applyButton.enabled
    panel.chooseModel("plain")
    assert panel.says == ""
    panel.chooseModel("vast")
    assert spin(lambda: panel.says == TOO_MUCH)
    panel.press()
    panel.waitForEnd()
    assert panel.says.startswith("Found Body")


def test_a_region_and_its_size_are_taken_into_account(panel):
    panel.addVolume()
    panel.chooseModel("vast")
    assert spin(lambda: panel.says == TOO_MUCH)
    region = atCentre(10.0)
    chooseRegion(panel, region)
    assert panel.says == ""
    region.SetSize(30.0, 30.0, 30.0)
    assert spin(lambda: panel.says == TOO_MUCH)
    region.SetSize(10.0, 10.0, 10.0)
    assert panel.says == ""


def test_an_answer_that_comes_too_late_is_not_told(panel):
    panel.addVolume()
    panel.chooseModel("vast")
    assert spin(lambda: panel.says == TOO_MUCH)
    asked = panel.widget.panel._foresight._request
    panel.parameters.inputVolume = panel.addVolume(spheres(18), name="Small")
    panel.widget.panel._foresight._onMessage(asked, {"event": "result", "warning": "late"})
    assert panel.says == ""


def test_it_is_asked_again_when_the_panel_is_opened_again(panel):
    panel.addVolume()
    panel.chooseModel("vast")
    assert spin(lambda: panel.says == TOO_MUCH)
    panel.widget.panel._foresight.doubt = ""
    panel.widget.panel.refresh()
    assert panel.says == ""
    panel.widget.panel.enter()
    assert spin(lambda: panel.says == TOO_MUCH)


def test_a_worker_that_cannot_tell_keeps_nobody_from_a_run(panel):
    panel.addVolume()
    panel.widget.panel._foresight._onMessage(
        panel.widget.panel._foresight._request, {"event": "error", "message": "no"}
    )
    assert panel.says == ""
    assert panel.ui.applyButton.enabled
