"""The course in the real JupyterLab: "run all" in Chromium, as a student meets it. HBN_FAST=1 for fewer steps."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("jupyterlab")
ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "runs" / "jupyterlab"
LONGEST = 1200  # seconds for a notebook, its training included
WHOLE = {"@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},  # every cell is drawn, seen or not
         "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
         "@jupyterlab/docmanager-extension/plugin": {"autosave": False}}  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """(address, folder, token) of a JupyterLab that shows a student's copy of the course."""
    folder, settings = tmp_path_factory.mktemp("lab"), tmp_path_factory.mktemp("settings")
    teacher = [sys.executable, str(ROOT / "tutorials" / "course.py"), "student", str(folder / "course")]
    subprocess.run(teacher, check=True, stdout=subprocess.DEVNULL)
    for name, values in WHOLE.items():
        path = settings / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), "utf-8")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               f"--ServerApp.root_dir={folder / 'course'}", f"--IdentityProvider.token={token}"]  # fmt: skip
    environment = os.environ | {"JUPYTERLAB_SETTINGS_DIR": str(settings), "HBN_DATA": "doodles",
                                "JUPYTERLAB_WORKSPACES_DIR": str(settings / "workspaces")}  # fmt: skip
    log = open(folder / "lab.log", "w")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/api?token={token}", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "lab.log").read_text()
                time.sleep(0.2)
        yield address, folder / "course", token
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def run_all(page, count):
    """Press "Run All Cells" and wait until each of the code cells has its number, and the kernel rests."""
    page.locator(".jp-Notebook").hover()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    end = time.monotonic() + LONGEST
    prompts = page.locator(".jp-Notebook .jp-CodeCell .jp-InputArea-prompt")
    while sum(text.strip()[1:-2].isdigit() for text in prompts.all_text_contents()) < count:
        assert time.monotonic() < end, prompts.all_text_contents()
        page.locator(".jp-Notebook").hover()  # playwright answers questions before it does anything
        time.sleep(2)


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["01_bits", "08_hybrid"])
def test_run_all_from_an_empty_kernel(lab, browser, stem):
    address, folder, token = lab
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = folder / "tutorials" / f"{stem}.ipynb"
    cells = nbformat.read(path, 4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(120_000)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    chooses_kernel = page.locator(".jp-Dialog .jp-mod-accept")  # the one that the notebook names is offered first
    page.add_locator_handler(chooses_kernel, lambda button: button.click())
    page.goto(f"{address}/lab/tree/tutorials/{stem}.ipynb?reset&token={token}")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']")
    run_all(page, len(code))
    page.wait_for_timeout(3000)  # the last picture and the last formula

    notebook = page.locator(".jp-Notebook")
    images = notebook.locator(".jp-OutputArea img").evaluate_all(
        "all => all.map(e => ({width: e.complete ? e.naturalWidth : 0, alt: e.alt.length}))"
    )
    sliders = sum("course.slider(" in cell.source for cell in code)
    pictures = sum("course.show(" in cell.source or "course.here(" in cell.source for cell in code)
    shown = {
        "errors": notebook.locator("[data-mime-type='application/vnd.jupyter.error']").all_inner_texts(),
        "warnings": notebook.locator("[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts(),
        "formulas that failed": notebook.locator("mjx-merror, .MathJax_Error").all_inner_texts(),
        "page": errors,
        "pictures without size": [image for image in images if image["width"] < 200],
    }
    counts = {
        "pictures": len(images),
        "formulas": notebook.locator("mjx-container").count(),
        "sliders": notebook.locator(".widget-slider, .widget-selection-slider, .widget-hslider").count(),
    }
    for number, cell in enumerate(notebook.locator(".jp-Cell").all()):
        cell.scroll_into_view_if_needed()
        if number % 6 == 0:
            page.screenshot(path=PICTURES / f"{stem}-{number:02}.png")
    context.close()
    assert not any(shown.values()), shown
    assert counts["pictures"] >= pictures > 3 and counts["formulas"] > 5 and counts["sliders"] >= sliders > 0, counts
